import os
import shutil
import zipfile
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet

from oncofm.demo.dicom import write_ct_series, write_localizer
from oncofm.demo.phantom import chest_scene
from oncofm.errors import InputNotFoundError
from oncofm.imaging.scan import DicomScan, scan_dicom
from oncofm.imaging.sources import FileSource

SCENE = chest_scene()
SMALL = {"shape": (16, 12, 6), "spacing_mm": (24.0, 24.0, 8.0)}


def write_series(folder: Path, uid_seed: str = "ct", **options) -> list[Path]:
    return write_ct_series(folder, SCENE, uid_seed=uid_seed, **{**SMALL, **options})


def reasons(scan: DicomScan) -> dict[str, str]:
    return {Path(skipped.name).name: skipped.reason for skipped in scan.skipped}


def uids(scan: DicomScan) -> list[list[str]]:
    return [sorted(i.sop_instance_uid for i in series.instances) for series in scan.series]


def test_series_are_grouped_by_uid_whatever_the_folders(tmp_path):
    first = write_series(tmp_path / "somewhere", "a/1")
    second = write_series(tmp_path / "somewhere" / "deep" / "er", "a/2")
    (tmp_path / "other").mkdir()
    shutil.move(first[2], tmp_path / "other" / "x")
    shutil.move(second[0], tmp_path / "other" / "y.txt")
    scan = scan_dicom(tmp_path)
    assert [len(series.instances) for series in scan.series] == [6, 6]
    assert len({series.study_uid for series in scan.series}) == 1
    assert not scan.skipped
    assert not any(series.duplicates for series in scan.series)


def test_records_hold_what_the_header_says(tmp_path):
    def edit(dataset: Dataset, index: int) -> None:
        dataset.AcquisitionNumber = 7
        dataset.TemporalPositionIdentifier = 2
        dataset.TriggerTime = "12.5"

    paths = write_series(tmp_path, slope=0.5, intercept=-1000.0, edit=edit)
    (series,) = scan_dicom(paths[0]).series
    (record,) = series.instances
    assert record.source == FileSource(paths[0])
    assert record.modality == series.modality == "CT"
    assert series.sop_class_uids == (record.sop_class_uid,) == ("1.2.840.10008.5.1.4.1.1.2",)
    assert record.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    assert record.image_type == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert (record.rows, record.columns, record.n_frames) == (12, 16, 1)
    assert record.samples_per_pixel == 1
    assert record.orientation == (1, 0, 0, 0, 1, 0)
    assert record.pixel_spacing_mm == (24, 24)
    assert record.position_mm == (-180, -132, -20)
    assert (record.rescale_slope, record.rescale_intercept) == (0.5, -1000)
    assert record.acquisition_number == 7
    assert record.temporal_position == 2
    assert record.trigger_time_ms == 12.5
    assert "PHANTOM" not in repr(record)


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
def test_numbers_that_are_none_stay_out(tmp_path):
    def edit(dataset: Dataset, index: int) -> None:
        dataset.ImagePositionPatient = ["1", "2"]
        dataset.PixelSpacing = ["nan", "1"] if index else None
        del dataset.RescaleSlope

    write_series(tmp_path, edit=edit)
    (series,) = scan_dicom(tmp_path).series
    for record in series.instances:
        assert record.position_mm is None
        assert record.pixel_spacing_mm is None
        assert record.rescale_slope is None


def test_what_is_no_image_is_listed_with_its_reason(tmp_path):
    write_series(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "no-suffix").write_bytes(os.urandom(4000))
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as archive:
        archive.writestr("a", "b")
    broken = (tmp_path / "slice-0000.dcm").read_bytes()[:700]
    (tmp_path / "broken.dcm").write_bytes(broken)
    scan = scan_dicom(tmp_path)
    assert reasons(scan) == {
        "notes.txt": "not_dicom",
        "empty.dcm": "empty_file",
        "no-suffix": "not_dicom",
        "inner.zip": "archive",
        "broken.dcm": "unreadable_file",
    }
    (error,) = [skipped.error for skipped in scan.skipped if skipped.error]
    assert "broken.dcm" in str(error)
    assert "ends inside the header" in str(error)
    assert len(scan.series) == 1


def test_a_dicom_file_without_uids_is_unreadable(tmp_path):
    def edit(dataset: Dataset, index: int) -> None:
        if index == 0:
            del dataset.SeriesInstanceUID

    write_series(tmp_path, edit=edit)
    scan = scan_dicom(tmp_path)
    assert len(scan.series[0].instances) == 5
    assert reasons(scan) == {"slice-0000.dcm": "unreadable_file"}


def test_dicomdir_and_the_files_it_lists(tmp_path):
    paths = write_series(tmp_path / "in")
    fileset = FileSet()
    for path in paths:
        fileset.add(path)
    fileset.write(tmp_path / "cd")
    scan = scan_dicom(tmp_path / "cd")
    assert reasons(scan) == {"DICOMDIR": "dicomdir"}
    assert uids(scan) == uids(scan_dicom(tmp_path / "in"))


def test_files_without_suffix_or_preamble(tmp_path):
    def strip_preamble(path: Path) -> None:
        data = path.read_bytes()
        meta_length = int.from_bytes(data[140:144], "little")
        path.write_bytes(data[144 + meta_length :])

    paths = write_series(tmp_path, file_name="IM{:06d}")
    expected = uids(scan_dicom(tmp_path))
    for path in paths[:3]:
        strip_preamble(path)
    scan = scan_dicom(tmp_path)
    assert uids(scan) == expected
    assert not scan.skipped


def test_the_same_instance_twice_is_a_duplicate(tmp_path):
    write_series(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (series,) = scan_dicom(tmp_path).series
    assert len(series.instances) == 6
    assert len(series.duplicates) == 6
    assert {Path(i.source.name).parent.name for i in series.instances} == {"a"}


def test_overlapping_inputs_and_links_give_every_file_once(tmp_path):
    paths = write_series(tmp_path / "a" / "b")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "a" / "again.dcm").symlink_to(paths[0])
    (tmp_path / "elsewhere").symlink_to(tmp_path / "a" / "b", target_is_directory=True)
    (tmp_path / "a" / "dangling").symlink_to(tmp_path / "nowhere")
    scan = scan_dicom([tmp_path / "elsewhere", tmp_path / "a", str(paths[0])])
    (series,) = scan.series
    assert (len(series.instances), len(series.duplicates)) == (6, 0)
    assert reasons(scan) == {"dangling": "unreadable_file"}


def test_a_missing_input_is_an_error(tmp_path):
    with pytest.raises(InputNotFoundError, match="nothing-here"):
        scan_dicom(tmp_path / "nothing-here")


def test_an_empty_folder_gives_nothing(tmp_path):
    assert scan_dicom(tmp_path) == DicomScan((), ())


def test_a_folder_that_may_not_be_listed_is_named(tmp_path, monkeypatch):
    write_series(tmp_path / "open")
    (tmp_path / "closed").mkdir()
    listdir = os.listdir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    scan = scan_dicom(tmp_path)
    assert reasons(scan) == {"closed": "unreadable_file"}
    assert "Permission denied" in str(scan.skipped[0].error)
    assert len(scan.series) == 1


def test_special_files_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert reasons(scan_dicom(tmp_path)) == {"pipe": "not_dicom"}


def test_spaces_and_umlauts(tmp_path):
    write_series(tmp_path / "Müller, Größe 1" / "日本")
    assert len(scan_dicom(tmp_path / "Müller, Größe 1").series[0].instances) == 6


def test_thousands_of_unrelated_files(tmp_path):
    write_series(tmp_path)
    for number in range(3000):
        (tmp_path / f"{number}.txt").write_bytes(b"unrelated " * 20)
    scan = scan_dicom(tmp_path)
    assert len(scan.skipped) == 3000
    assert len(scan.series[0].instances) == 6


# --- zip ----------------------------------------------------------------------------------


def zip_folder(folder: Path, archive: Path, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(archive, "w", compression) as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder))
    return archive


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_read_in_place(tmp_path, compression):
    write_series(tmp_path / "in" / "Größe")
    write_localizer(tmp_path / "in" / "scout", SCENE)
    (tmp_path / "in" / "readme").write_text("hello")
    (tmp_path / "in" / "void").touch()
    archive = zip_folder(tmp_path / "in", tmp_path / "study", compression)
    before = set(tmp_path.rglob("*"))
    scan = scan_dicom(archive)
    assert uids(scan) == uids(scan_dicom(tmp_path / "in"))
    assert reasons(scan) == {"readme": "not_dicom", "void": "empty_file"}
    assert set(tmp_path.rglob("*")) == before
    record = scan.series[0].instances[0]
    with record.source.open() as file:
        data = file.read()
    assert data == (tmp_path / "in" / "Größe" / "slice-0000.dcm").read_bytes()


def test_a_broken_zip_is_named(tmp_path):
    write_series(tmp_path / "in")
    archive = zip_folder(tmp_path / "in", tmp_path / "study.zip")
    archive.write_bytes(archive.read_bytes()[:-200])
    scan = scan_dicom([archive, tmp_path / "in"])
    assert reasons(scan) == {"study.zip": "unreadable_file"}
    assert "broken zip" in str(scan.skipped[0].error)
    assert len(scan.series) == 1


def test_a_zip_with_a_damaged_member_loses_only_that(tmp_path):
    paths = write_series(tmp_path / "in")
    archive = zip_folder(tmp_path / "in", tmp_path / "study.zip", zipfile.ZIP_DEFLATED)
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as file:
        start = file.getinfo(paths[1].name).header_offset + 60
    data[start : start + 40] = b"\xff" * 40
    archive.write_bytes(data)
    scan = scan_dicom(archive)
    assert reasons(scan) == {paths[1].name: "unreadable_file"}
    assert len(scan.series[0].instances) == 5


def test_an_encrypted_zip_is_named(tmp_path):
    write_series(tmp_path / "in")
    archive = zip_folder(tmp_path / "in", tmp_path / "study.zip", zipfile.ZIP_STORED)
    data = archive.read_bytes()
    # Bit 0 of the general purpose flags, in the local headers and in the central directory.
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        parts = data.split(signature)
        data = parts[0] + b"".join(
            signature + part[: offset - 4] + b"\x01" + part[offset - 3 :] for part in parts[1:]
        )
    archive.write_bytes(data)
    scan = scan_dicom(archive)
    assert not scan.series
    assert "6 of its 6 members are encrypted" in str(scan.skipped[0].error)


def test_real_series(shared_data):
    scan = scan_dicom([shared_data / "petct_ct", shared_data / "petct_topograms"])
    assert sorted(len(series.instances) for series in scan.series) == [1, 1, 174]
    assert {series.modality for series in scan.series} == {"CT"}
    assert not scan.skipped
