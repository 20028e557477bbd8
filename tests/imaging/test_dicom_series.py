"""The stated policy on CT series, case by case; pydicom and SimpleITK (GDCM) are the judges."""

import shutil
import threading
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)
from scipy.spatial.transform import Rotation

from oncofm.demo.dicom import ct_geometry, write_ct_series, write_localizer
from oncofm.demo.encode import TRANSFER_SYNTAXES
from oncofm.demo.enhanced import write_enhanced_ct
from oncofm.demo.headers import phantom_uid
from oncofm.demo.phantom import chest_scene, sample_scene
from oncofm.errors import (
    DuplicatePositionError,
    LocalizerError,
    MissingGeometryError,
    MissingRescaleError,
    NotCTError,
    SecondaryCaptureError,
    SeriesGapError,
    SingleSliceError,
    SliceUndecodableError,
)
from oncofm.imaging import dicom_series
from oncofm.imaging.dicom_series import CTVolumes, DicomSeries, ct_volumes
from oncofm.imaging.patch import PatchSpec, sample_patch
from oncofm.imaging.scan import scan_dicom
from oncofm.imaging.volume import Volume

SCENE = chest_scene()
SMALL = {"shape": (40, 36, 12), "spacing_mm": (9.0, 9.0, 8.0)}
UID = phantom_uid("ct", "series")
OBLIQUE = Rotation.from_euler("xyz", [12, -20, 30], degrees=True).as_matrix()


def write(folder: Path, **options) -> list[Path]:
    return write_ct_series(folder, SCENE, **{**SMALL, **options})


def truth(**options) -> np.ndarray:
    options = {**SMALL, **options}
    return sample_scene(SCENE, ct_geometry(SCENE, **options))


def open_series(*inputs: Path) -> CTVolumes:
    (series,) = scan_dicom(inputs).series
    return ct_volumes(series)


def one(result: CTVolumes) -> DicomSeries:
    assert result.rejected == ()
    (volume,) = result.volumes
    return volume


def whole(volume: Volume) -> np.ndarray:
    return volume.read_box((0, 0, 0), volume.geometry.shape)


def codes(volume: Volume) -> list[str]:
    return [notice.code for notice in volume.notices]


def the_error(result: CTVolumes, volume_id: str = UID) -> Exception:
    assert result.volumes == ()
    ((rejected_id, error),) = result.rejected
    assert rejected_id == volume_id
    assert volume_id.split("#")[0] in str(error)
    return error


def change(path: Path, edit) -> None:
    dataset = pydicom.dcmread(path)
    edit(dataset)
    dataset.save_as(path)


def origins(*positions_mm: float) -> np.ndarray:
    """Slices of the small series at other places along z."""
    first = ct_geometry(SCENE, **SMALL).origins_mm[0]
    return np.array([[first[0], first[1], z] for z in positions_mm])


# --- pixels -------------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_every_transfer_syntax(tmp_path, syntax, signed):
    options = {
        "transfer_syntax": syntax,
        "signed": signed,
        "slope": 0.5,
        "intercept": -900.0 if signed else -1100.0,
    }
    write(tmp_path, **options, shape=(40, 36, 3))
    volume = one(open_series(tmp_path))
    np.testing.assert_array_equal(whole(volume), truth(shape=(40, 36, 3)))
    assert isinstance(volume, Volume)
    assert whole(volume).dtype == np.float32


def test_pixels_and_geometry_equal_those_of_gdcm(tmp_path):
    write(tmp_path, direction=OBLIQUE, slope=0.25, intercept=-1000.0)
    volume = one(open_series(tmp_path))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    expected = sitk.GetArrayFromImage(image)
    np.testing.assert_array_equal(whole(volume), expected)
    for index in [(0, 0, 0), (39, 35, 11), (3, 14, 7)]:
        point = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(volume.geometry.to_lps(np.array([index])), [point], atol=1e-4)


def test_rescale_of_each_slice_is_its_own(tmp_path):
    def edit(dataset: Dataset, index: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = str(index + 1), str(-index)

    write(tmp_path, edit=edit)
    stored = truth() + 1024.0
    expected = stored * np.arange(1, 13)[:, None, None] - np.arange(12)[:, None, None]
    np.testing.assert_array_equal(whole(one(open_series(tmp_path))), expected)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_bits_beyond_bits_stored_do_not_count(tmp_path, syntax, signed):
    def edit(dataset: Dataset, index: int) -> None:
        dataset.BitsStored, dataset.HighBit = 12, 11
        pixels = np.frombuffer(dataset.PixelData, np.uint16) & 0x0FFF
        dataset.PixelData = (pixels | 0x3000).astype(np.uint16).tobytes()
        if syntax == RLELossless:
            dataset.compress(RLELossless, generate_instance_uid=False)

    write(tmp_path, edit=edit, signed=signed, intercept=0.0 if signed else -1024.0)
    np.testing.assert_array_equal(whole(one(open_series(tmp_path))), truth())


def test_pixel_padding_stays_as_it_is(tmp_path):
    def edit(dataset: Dataset, index: int) -> None:
        pixels = np.frombuffer(dataset.PixelData, np.int16).copy()
        pixels[:10] = -2000
        dataset.PixelPaddingValue = -2000
        dataset.PixelData = pixels.tobytes()

    write(tmp_path, edit=edit, signed=True, intercept=-1024.0)
    assert whole(one(open_series(tmp_path)))[0].ravel()[:10].tolist() == [-3024] * 10


def test_a_file_without_preamble_is_decoded(tmp_path):
    for path in write(tmp_path, transfer_syntax=ImplicitVRLittleEndian):
        data = path.read_bytes()
        path.write_bytes(data[144 + int.from_bytes(data[140:144], "little") :])
    np.testing.assert_array_equal(whole(one(open_series(tmp_path))), truth())


def test_out_of_a_zip(tmp_path):
    paths = write(tmp_path / "in", transfer_syntax=JPEGLSLossless)
    with zipfile.ZipFile(tmp_path / "s.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in paths:
            archive.write(path, path.name)
    np.testing.assert_array_equal(whole(one(open_series(tmp_path / "s.zip"))), truth())


def test_the_true_order_is_that_of_the_positions(tmp_path):
    def edit(dataset: Dataset, index: int) -> None:
        dataset.InstanceNumber = 5 * index % 12
        dataset.SliceThickness = "1"
        dataset.SliceLocation = "0"

    write(tmp_path, edit=edit, file_name="{0}-0")
    volume = one(open_series(tmp_path))
    np.testing.assert_array_equal(whole(volume), truth())
    np.testing.assert_allclose(np.diff(volume.geometry.positions_mm), 8)
    assert codes(volume) == []


@pytest.mark.parametrize("direction", [np.diag([1, 1, -1]), np.diag([-1, 1, 1]), OBLIQUE])
def test_any_orientation(tmp_path, direction):
    write(tmp_path, direction=direction)
    volume, geometry = one(open_series(tmp_path)), ct_geometry(SCENE, **SMALL, direction=direction)
    hu, expected = whole(volume), truth(direction=direction)
    index = np.random.default_rng(0).integers(0, (40, 36, 12), (200, 3))
    here = np.rint(volume.geometry.to_index(geometry.to_lps(index))).astype(int)
    np.testing.assert_array_equal(hu[tuple(here.T[::-1])], expected[tuple(index.T[::-1])])


# --- reading no more than needed ----------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Positions of the frames that are decoded during a test."""
    frames: list[int] = []
    decode_frame = dicom_series.decode_frame

    def count(source, location, index):
        frames.append(int(Path(source.name).stem.split("-")[-1]) + index)
        return decode_frame(source, location, index)

    monkeypatch.setattr(dicom_series, "decode_frame", count)
    return frames


def test_only_the_slices_of_a_box_are_decoded_and_only_once(tmp_path, decoded):
    write(tmp_path)
    volume = one(open_series(tmp_path))
    assert decoded == []
    box = volume.read_box((2, 3, 4), (10, 9, 7))
    assert decoded == [4, 5, 6]
    np.testing.assert_array_equal(box, truth()[4:7, 3:9, 2:10])
    volume.read_box((0, 0, 5), (1, 1, 9))
    assert decoded == [4, 5, 6, 7, 8]


def test_a_patch_decodes_only_the_slices_it_touches(tmp_path, decoded):
    options = {"shape": (40, 40, 48), "spacing_mm": (4.0, 4.0, 5.0)}
    write(tmp_path, **options)
    volume = one(open_series(tmp_path))
    sample_patch(volume, SCENE.centre_mm, PatchSpec())
    assert decoded == sorted(decoded)
    assert len(decoded) <= 12
    sample_patch(volume, SCENE.centre_mm, PatchSpec())
    assert len(decoded) <= 12


def test_only_the_frames_of_a_box_are_decoded_of_a_multi_frame_image(tmp_path, decoded):
    write_enhanced_ct(tmp_path / "image-0", SCENE, **SMALL, transfer_syntax=JPEGLSLossless)
    volume = one(open_series(tmp_path))
    np.testing.assert_array_equal(volume.read_box((0, 0, 3), (40, 36, 5)), truth()[3:5])
    assert decoded == [3, 4]


def test_threads_share_decoded_slices(tmp_path, decoded):
    write(tmp_path)
    volume = one(open_series(tmp_path))
    threads = [threading.Thread(target=whole, args=(volume,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(decoded) == list(range(12))


# --- enhanced multi-frame -----------------------------------------------------------------


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_enhanced_ct(tmp_path, syntax):
    write_enhanced_ct(
        tmp_path / "e.dcm", SCENE, **SMALL, direction=OBLIQUE, transfer_syntax=syntax, slope=0.5
    )
    volume = one(open_series(tmp_path))
    np.testing.assert_array_equal(whole(volume), truth(direction=OBLIQUE))
    expected = ct_geometry(SCENE, **SMALL, direction=OBLIQUE)
    np.testing.assert_allclose(volume.geometry.affine, expected.affine, atol=1e-6)
    assert volume.volume_id == phantom_uid("enhanced", "series")


def test_enhanced_ct_with_everything_per_frame_and_in_any_order(tmp_path):
    def edit(dataset: Dataset, index: int) -> None:
        shared = dataset.SharedFunctionalGroupsSequence[0]
        for per_frame in dataset.PerFrameFunctionalGroupsSequence:
            for keyword in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
                setattr(per_frame, keyword, getattr(shared, keyword))
        for keyword in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
            delattr(shared, keyword)
        order = np.random.default_rng(0).permutation(12)
        frames = np.frombuffer(dataset.PixelData, np.uint16).reshape(12, -1)
        dataset.PixelData = frames[order].tobytes()
        groups = dataset.PerFrameFunctionalGroupsSequence
        dataset.PerFrameFunctionalGroupsSequence = [groups[k] for k in order]

    write_enhanced_ct(tmp_path / "e.dcm", SCENE, **SMALL, edit=edit)
    np.testing.assert_array_equal(whole(one(open_series(tmp_path))), truth())


def test_enhanced_ct_split_by_temporal_position(tmp_path):
    def edit(dataset: Dataset, index: int) -> None:
        for k, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            group.FrameContentSequence[0].TemporalPositionIndex = 1 + k // 6
            group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, k % 6]

    write_enhanced_ct(tmp_path / "e.dcm", SCENE, **SMALL, edit=edit)
    result = open_series(tmp_path)
    uid = phantom_uid("enhanced", "series")
    assert [volume.volume_id for volume in result.volumes] == [uid, f"{uid}#2"]
    np.testing.assert_array_equal(whole(result.volumes[1]), truth()[6:])


@pytest.mark.parametrize(
    ("keyword", "error"),
    [
        ("PlanePositionSequence", MissingGeometryError),
        ("PixelValueTransformationSequence", MissingRescaleError),
    ],
)
def test_enhanced_ct_without(tmp_path, keyword, error):
    def edit(dataset: Dataset, index: int) -> None:
        for group in dataset.PerFrameFunctionalGroupsSequence:
            delattr(group, keyword)

    write_enhanced_ct(tmp_path / "e.dcm", SCENE, **SMALL, edit=edit)
    found = the_error(open_series(tmp_path), phantom_uid("enhanced", "series"))
    assert isinstance(found, error)


# --- what is no volume --------------------------------------------------------------------


def test_another_modality(tmp_path):
    write(tmp_path, edit=lambda dataset, index: setattr(dataset, "Modality", "MR"))
    error = the_error(open_series(tmp_path))
    assert isinstance(error, NotCTError)
    assert "MR" in str(error)


def test_an_object_of_modality_ct_that_is_no_image(tmp_path):
    raw_data = "1.2.840.10008.5.1.4.1.1.66"
    write(tmp_path, edit=lambda dataset, index: setattr(dataset, "SOPClassUID", raw_data))
    assert isinstance(the_error(open_series(tmp_path)), NotCTError)


def test_a_localizer_series(tmp_path):
    write_localizer(tmp_path / "scout", SCENE, series_uid=UID)
    assert isinstance(the_error(open_series(tmp_path)), LocalizerError)


def test_a_localizer_inside_the_series(tmp_path):
    write(tmp_path)
    write_localizer(tmp_path / "scout", SCENE, series_uid=UID)
    volume = one(open_series(tmp_path))
    assert codes(volume) == ["localizer_left_out"]
    np.testing.assert_array_equal(whole(volume), truth())


def screenshot(dataset: Dataset, index: int) -> None:
    dataset.ImageType = ["DERIVED", "SECONDARY", "SCREEN SAVE"]


def secondary_capture(dataset: Dataset, index: int) -> None:
    dataset.SOPClassUID = SecondaryCaptureImageStorage


def colour(dataset: Dataset, index: int) -> None:
    dataset.SamplesPerPixel = 3


def derived_without_position(dataset: Dataset, index: int) -> None:
    dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    del dataset.ImagePositionPatient


@pytest.mark.parametrize("edit", [screenshot, secondary_capture, colour, derived_without_position])
def test_secondary_captures(tmp_path, edit):
    write(tmp_path / "all", edit=edit)
    assert isinstance(the_error(open_series(tmp_path / "all")), SecondaryCaptureError)

    last_only = lambda dataset, index: edit(dataset, index) if index == 11 else None  # noqa: E731
    write(tmp_path / "last", edit=last_only)
    volume = one(open_series(tmp_path / "last"))
    assert codes(volume) == ["secondary_capture_left_out"]
    np.testing.assert_array_equal(whole(volume), truth()[:11])


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ImagePositionPatient", None),
        ("ImageOrientationPatient", None),
        ("PixelSpacing", None),
        ("PixelSpacing", ["0", "1"]),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]),
        ("ImageOrientationPatient", [2, 0, 0, 0, 1, 0]),
    ],
)
def test_no_geometry(tmp_path, keyword, value):
    def edit(dataset: Dataset, index: int) -> None:
        setattr(dataset, keyword, value)

    write(tmp_path, edit=edit)
    assert isinstance(the_error(open_series(tmp_path)), MissingGeometryError)


def test_one_image_without_geometry_is_left_out(tmp_path):
    def edit(dataset: Dataset, index: int) -> None:
        if index == 11:
            del dataset.ImagePositionPatient

    write(tmp_path, edit=edit)
    volume = one(open_series(tmp_path))
    assert codes(volume) == ["missing_geometry_left_out"]
    assert volume.geometry.shape == (40, 36, 11)


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
@pytest.mark.parametrize("which", [range(12), [7]])
def test_no_rescale(tmp_path, keyword, which, decoded):
    def edit(dataset: Dataset, index: int) -> None:
        if index in which:
            delattr(dataset, keyword)

    write(tmp_path, edit=edit)
    error = the_error(open_series(tmp_path))
    assert isinstance(error, MissingRescaleError)
    assert f"in {len(which)} of 12 images" in str(error)
    assert decoded == []


def test_one_slice(tmp_path):
    write(tmp_path, shape=(40, 36, 1))
    assert isinstance(the_error(open_series(tmp_path)), SingleSliceError)


# --- copies and contradictions ------------------------------------------------------------


def test_the_same_files_in_two_folders(tmp_path, decoded):
    write(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    volume = one(open_series(tmp_path))
    assert codes(volume) == ["duplicate_dropped"]
    assert decoded == []
    np.testing.assert_array_equal(whole(volume), truth())


def test_the_same_pixels_in_another_encoding(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", transfer_syntax=JPEG2000Lossless, slope=0.5, intercept=-1000.0)
    volume = one(open_series(tmp_path))
    assert codes(volume) == ["duplicate_dropped"]
    np.testing.assert_array_equal(whole(volume), truth())


def test_another_instance_with_the_same_pixels_in_the_same_place(tmp_path):
    paths = write(tmp_path)
    shutil.copy(paths[4], tmp_path / "copy.dcm")
    change(tmp_path / "copy.dcm", lambda dataset: setattr(dataset, "SOPInstanceUID", "2.25.1"))
    volume = one(open_series(tmp_path))
    assert codes(volume) == ["duplicate_dropped"]
    assert volume.geometry.shape == (40, 36, 12)


def invert(dataset: Dataset) -> None:
    dataset.PixelData = (4000 - np.frombuffer(dataset.PixelData, np.uint16)).tobytes()


@pytest.mark.parametrize("sop_instance_uid", ["2.25.1", None])
def test_different_pixels_in_one_place(tmp_path, sop_instance_uid):
    paths = write(tmp_path)
    shutil.copy(paths[4], tmp_path / "copy.dcm")

    def edit(dataset: Dataset) -> None:
        invert(dataset)
        dataset.SOPInstanceUID = sop_instance_uid or dataset.SOPInstanceUID

    change(tmp_path / "copy.dcm", edit)
    assert isinstance(the_error(open_series(tmp_path)), DuplicatePositionError)


def test_one_instance_uid_in_two_places(tmp_path):
    paths = write(tmp_path)
    shutil.copy(paths[4], tmp_path / "copy.dcm")
    change(
        tmp_path / "copy.dcm",
        lambda dataset: setattr(dataset, "ImagePositionPatient", ["0", "0", "500"]),
    )
    assert isinstance(the_error(open_series(tmp_path)), DuplicatePositionError)


def test_a_broken_copy_does_not_spoil_the_good_one(tmp_path):
    write(tmp_path / "a")
    path = write(tmp_path / "b")[4]
    good = path.read_bytes()
    shutil.rmtree(tmp_path / "b")
    (tmp_path / "0-broken.dcm").write_bytes(good[:-100])
    volume = one(open_series(tmp_path))
    assert codes(volume) == ["duplicate_dropped"]
    np.testing.assert_array_equal(whole(volume), truth())


def test_a_copy_that_vanished_after_the_scan(tmp_path):
    write(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (series,) = scan_dicom(tmp_path).series
    series.duplicates[3].source.path.unlink()
    volume = one(ct_volumes(series))
    np.testing.assert_array_equal(whole(volume), truth())


# --- several volumes in one series --------------------------------------------------------


@pytest.mark.parametrize(
    "keyword", ["AcquisitionNumber", "TemporalPositionIdentifier", "TriggerTime"]
)
def test_acquisitions_that_share_positions_are_split(tmp_path, keyword, decoded):
    def edit(dataset: Dataset, index: int) -> None:
        setattr(dataset, keyword, 1)

    def edit_second(dataset: Dataset, index: int) -> None:
        invert(dataset)
        setattr(dataset, keyword, 2)
        dataset.SOPInstanceUID = phantom_uid("second", index)

    write(tmp_path / "1", edit=edit, file_name="a-{}")
    write(tmp_path / "2", edit=edit_second, shape=(40, 36, 12), file_name="b-{}")
    result = open_series(tmp_path)
    assert [volume.volume_id for volume in result.volumes] == [UID, f"{UID}#2"]
    assert [codes(volume) for volume in result.volumes] == [["series_split"]] * 2
    assert len(decoded) == 2
    np.testing.assert_array_equal(whole(result.volumes[0]), truth())
    np.testing.assert_array_equal(whole(result.volumes[1]), 1952 - truth())


def test_acquisitions_one_behind_the_other_stay_together(tmp_path):
    def edit(dataset: Dataset, index: int) -> None:
        dataset.AcquisitionNumber = 1 + index // 6

    write(tmp_path, edit=edit)
    assert codes(one(open_series(tmp_path))) == []


def test_orientations_and_sizes_are_split_and_a_stray_slice_rejected(tmp_path):
    sagittal = np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]])
    write(tmp_path / "1", uid_seed="ct/1", series_uid=UID)
    for number, options in enumerate(
        [
            {"shape": (20, 12, 8), "direction": sagittal},
            {"shape": (12, 10, 5), "spacing_mm": (32.0, 32.0, 8.0)},
            {"shape": (10, 10, 1)},
        ]
    ):
        uid_of = lambda dataset, k, n=number: setattr(  # noqa: E731
            dataset, "SOPInstanceUID", phantom_uid(n, k)
        )
        write(tmp_path / f"x{number}", series_uid=UID, edit=uid_of, **options)
    result = open_series(tmp_path)
    shapes = {volume.volume_id: volume.geometry.shape for volume in result.volumes}
    assert shapes == {
        UID: (40, 36, 12),
        f"{UID}#2": (20, 12, 8),
        f"{UID}#3": (12, 10, 5),
    }
    ((stray_id, error),) = result.rejected
    assert stray_id == f"{UID}#4"
    assert isinstance(error, SingleSliceError)
    # Slices are sorted along the cross product of rows and columns: here to the right.
    expected = truth(shape=(20, 12, 8), direction=sagittal)[::-1]
    np.testing.assert_array_equal(whole(result.volumes[1]), expected)


def test_orientations_that_differ_by_rounding_stay_together(tmp_path):
    def edit(dataset: Dataset, index: int) -> None:
        dataset.ImageOrientationPatient = [1, 0, 1e-5 * (index % 3), 0, 1, 0]

    write(tmp_path, edit=edit)
    assert one(open_series(tmp_path)).geometry.shape == (40, 36, 12)


# --- uneven stacks ------------------------------------------------------------------------


def test_missing_slices_are_told_and_sampled_between_the_true_neighbours(tmp_path):
    z_mm = [0, 8, 16, 24, 40, 48, 56, 64, 72, 80, 88, 96]
    write(tmp_path, slice_origins_mm=origins(*z_mm))
    volume = one(open_series(tmp_path))
    assert codes(volume) == ["missing_slices"]
    index = volume.geometry.to_index(np.array([[0, 0, 32], [0, 0, 44.0]]))
    np.testing.assert_allclose(index[:, 2], [3.5, 4.5])


def test_varying_spacing_is_told(tmp_path):
    z_mm = [0, 8, 16, 24, 32, 40, 49, 58, 67, 76, 85, 94]
    write(tmp_path, slice_origins_mm=origins(*z_mm))
    volume = one(open_series(tmp_path))
    assert codes(volume) == ["varying_spacing"]
    assert not volume.geometry.is_regular


def test_spacing_that_varies_by_rounding_is_not_told(tmp_path):
    z_mm = np.round(np.arange(12) * 8 / 3, 2)
    write(tmp_path, slice_origins_mm=origins(*z_mm))
    assert codes(one(open_series(tmp_path))) == []


@pytest.mark.parametrize("profile", ["mhub", "paper"])
def test_a_wide_gap_rejects_only_patches_it_lies_in(tmp_path, profile):
    z_mm = np.concatenate([np.arange(30) * 4, np.arange(30) * 4 + 140.0])
    options = {"shape": (60, 60, 60), "spacing_mm": (4.0, 4.0, 4.0)}
    write(
        tmp_path,
        **options,
        slice_origins_mm=np.array([[-118.0, -118.0, z] for z in z_mm]),
        centre_mm=(0, 0, 0),
    )
    volume = one(open_series(tmp_path))
    assert codes(volume) == ["missing_slices"]
    sample_patch(volume, (0, 0, 60), PatchSpec(profile))
    sample_patch(volume, (0, 0, 200), PatchSpec(profile))
    for z in (100, 128, 160):
        with pytest.raises(SeriesGapError, match=r"misses 24.0 mm"):
            sample_patch(volume, (0, 0, z), PatchSpec(profile))


def test_gantry_tilt_is_told_and_keeps_its_sheared_affine(tmp_path):
    tilt = np.radians(15)
    direction = np.array([[1, 0, 0], [0, np.cos(tilt), 0], [0, np.sin(tilt), 1]])
    write(tmp_path, direction=direction)
    volume = one(open_series(tmp_path))
    assert codes(volume) == ["gantry_tilt"]
    assert "15.0 degrees" in volume.notices[0].message
    expected = ct_geometry(SCENE, **SMALL, direction=direction).affine
    np.testing.assert_allclose(volume.geometry.affine, expected, atol=1e-6)


# --- broken slices ------------------------------------------------------------------------


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 200])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_a_truncated_slice_rejects_only_boxes_that_need_it(tmp_path, syntax):
    paths = write(tmp_path, transfer_syntax=syntax)
    uid = pydicom.dcmread(paths[5]).SOPInstanceUID
    truncate(paths[5])
    volume = one(open_series(tmp_path))
    np.testing.assert_array_equal(volume.read_box((0, 0, 0), (40, 36, 5)), truth()[:5])
    np.testing.assert_array_equal(volume.read_box((0, 0, 6), (40, 36, 12)), truth()[6:])
    with pytest.raises(SliceUndecodableError, match=uid.replace(".", r"\.")):
        volume.read_box((0, 0, 4), (40, 36, 6))


def test_an_uncompressed_multi_frame_image_cut_in_half(tmp_path):
    path = write_enhanced_ct(tmp_path / "e.dcm", SCENE, **SMALL)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 6 * 40 * 36 * 2])
    volume = one(open_series(tmp_path))
    np.testing.assert_array_equal(volume.read_box((0, 0, 0), (40, 36, 6)), truth()[:6])
    with pytest.raises(SliceUndecodableError, match="frame 7"):
        volume.read_box((0, 0, 0), (40, 36, 7))


def lose_pixels(dataset: Dataset) -> None:
    del dataset.PixelData


def garble(dataset: Dataset) -> None:
    dataset.PixelData = encapsulate([b"no image at all!"])
    dataset["PixelData"].VR = "OB"


def unknown_syntax(dataset: Dataset) -> None:
    garble(dataset)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"  # MPEG-2


def lose_bits(dataset: Dataset) -> None:
    del dataset.BitsAllocated


@pytest.mark.parametrize("edit", [lose_pixels, garble, unknown_syntax, lose_bits])
def test_a_slice_that_cannot_be_decoded(tmp_path, edit):
    paths = write(tmp_path, transfer_syntax=JPEGLSLossless)
    change(paths[5], edit)
    volume = one(open_series(tmp_path))
    volume.read_box((0, 0, 0), (40, 36, 5))
    with pytest.raises(SliceUndecodableError, match="cannot be decoded"):
        volume.read_box((0, 0, 5), (40, 36, 6))


def test_a_slice_that_vanished_after_the_scan(tmp_path):
    paths = write(tmp_path)
    volume = one(open_series(tmp_path))
    paths[0].unlink()
    with pytest.raises(SliceUndecodableError, match="FileNotFoundError"):
        whole(volume)


# --- real series --------------------------------------------------------------------------


def test_real_series_leave_the_topograms_out(shared_data):
    scan = scan_dicom([shared_data / "petct_ct", shared_data / "petct_topograms"])
    results = [ct_volumes(series) for series in scan.series]
    ((volume,), *others) = (result.volumes for result in results)
    assert others == [(), ()]
    assert [type(error) for result in results for _, error in result.rejected] == [
        LocalizerError,
        LocalizerError,
    ]
    assert volume.geometry.shape == (512, 512, 174)
    assert volume.notices == ()
    middle = volume.frames[87].instance.source
    dataset = pydicom.dcmread(middle.path)
    expected = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    np.testing.assert_array_equal(volume.read_box((0, 0, 87), (512, 512, 88))[0], expected)
