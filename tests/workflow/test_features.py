import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from fakes import VoxelEncoder, voxels_of
from studies import write_study

import oncofm
from oncofm.errors import SeedTableError
from oncofm.imaging.patch import PatchSpec, sample_patch
from oncofm.imaging.volume_file import VolumeFile
from oncofm.workflow import features

COORDINATES = ["coordX", "coordY", "coordZ"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("features"), "features")


@pytest.fixture(scope="module")
def nrrd(study):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in study.ct_files])
    path = study.folder / "volume.nrrd"
    sitk.WriteImage(sitk.Cast(reader.Execute(), sitk.sitkInt16), str(path))
    return path


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(features, "start_loading", lambda *_: lambda: VoxelEncoder())


def rows_of(study, nrrd):
    a, b, c = (lesion.centre_mm for lesion in study.scene.lesions)
    return pd.DataFrame(
        [
            ["p1", str(nrrd), *a, 1],
            ["p2", str(study.folder / "ct"), *b, 2],
            ["p3", "missing.nii.gz", *c, 3],
            ["p4", str(nrrd), np.nan, 0, 0, 4],
            ["p5", str(study.folder / "ct"), *a, 5],
            ["p6", str(nrrd), 5000, 0, 0, 6],
            ["p7", None, 0, 0, 0, 7],
            ["p8", str(nrrd), *b, 8],
        ],
        columns=["PatientID", "image_path", *COORDINATES, "grade"],
    )


def check(table, given, nrrd):
    preds = [f"pred_{i}" for i in range(4096)]
    assert list(table)[: 6 + 4096] == [*given, *preds]
    assert table["PatientID"].tolist() == given["PatientID"].tolist()
    assert table["grade"].tolist() == given["grade"].tolist()
    reasons = ["", "", "unreadable_file", "seed_invalid", "", "seed_outside_volume",
               "seed_invalid", ""]  # fmt: skip
    assert table["reason"].fillna("").tolist() == reasons
    assert table["state"].tolist() == ["rejected" if reason else "done" for reason in reasons]
    done = table["state"] == "done"
    assert table.loc[~done, preds].isna().all(axis=None)
    assert table.loc[~done, "message"].str.endswith(".").all()
    volume = VolumeFile(nrrd)
    for row in table[done].index:
        point = tuple(given.loc[row, COORDINATES])
        patch = sample_patch(volume, point, PatchSpec()).voxels
        got = table.loc[row, preds].to_numpy(np.float32)
        np.testing.assert_allclose(got, voxels_of(patch[None])[0], atol=1e-5)


def test_a_data_frame_goes_in_and_comes_back_with_features(study, nrrd, no_network):
    given = rows_of(study, nrrd)
    check(oncofm.extract_features(given), given, nrrd)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_command_keeps_rows_and_columns(cli, study, nrrd, tmp_path, suffix):
    given = rows_of(study, nrrd)
    given.to_csv(tmp_path / "seeds.csv", index=False)
    output = tmp_path / f"out.{suffix}"
    result = cli("features", tmp_path / "seeds.csv", "-o", output)
    assert result.code == 2
    assert "4 of 8 rows done" in result.stderr
    read = pd.read_csv if suffix == "csv" else pd.read_parquet
    check(read(output), given, nrrd)


def test_relative_paths_count_from_the_table(cli, study, nrrd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, y, z = study.scene.lesions[0].centre_mm
    table = study.folder / "relative.csv"
    table.write_text(f"image_path,coordX,coordY,coordZ\nvolume.nrrd,{x},{y},{z}\n")
    assert cli("features", table, "-o", tmp_path / "out.csv").code == 0


def test_a_table_without_coordinates_is_a_usage_error(no_network):
    with pytest.raises(SeedTableError, match="coordX"):
        oncofm.extract_features(pd.DataFrame({"image_path": ["a.nii"]}))


def test_only_known_output_formats(cli, tmp_path):
    (tmp_path / "seeds.csv").write_text("image_path,coordX,coordY,coordZ\na,0,0,0\n")
    result = cli("features", tmp_path / "seeds.csv", "-o", tmp_path / "out.xlsx")
    assert result.code == 1
    assert ".parquet, .csv" in result.stderr


def test_volume_and_mask_through_run(cli, study, nrrd, tmp_path):
    from studies import GRID

    from oncofm.demo.dicom import ct_geometry
    from oncofm.demo.segmentation import lesion_segments

    labels = sum(
        (number * segment.mask.astype(np.uint8))
        for number, segment in enumerate(
            lesion_segments(study.scene, ct_geometry(study.scene, **GRID)), start=1
        )
    )
    mask = sitk.GetImageFromArray(labels)
    mask.CopyInformation(sitk.ReadImage(str(nrrd)))
    sitk.WriteImage(mask, str(tmp_path / "mask.nii.gz"))
    masked = cli("run", nrrd, "--seeds", tmp_path / "mask.nii.gz", tmp_path / "a")
    assert masked.code == 0
    segmented = cli("run", study.folder / "ct", study.seg_file, tmp_path / "b")
    assert segmented.code == 0
    np.testing.assert_allclose(
        masked.features.filter(like="pred_").to_numpy(),
        segmented.features.filter(like="pred_").to_numpy(),
        atol=1e-4,
    )
