"""The list of a study's cases, in all its forms, and what can be wrong with it."""

import json
import os

import pandas as pd
import pytest
from batches import write_manifest, write_volume

from oncofm.errors import BatchError, InputNotFoundError, SeedTableError
from oncofm.seeds.table import SeedTable
from oncofm.workflow.batch.manifest_file import manifest_items


def test_an_image_in_each_row(tmp_path):
    path = write_manifest(tmp_path / "m.csv", "image_path", "b/ct", "a.zip", "/abs/x.nii.gz")
    items = manifest_items(path)
    assert [item.item_id for item in items] == ["b/ct", "a.zip", "/abs/x.nii.gz"]
    assert [item.position for item in items] == [0, 1, 2]
    assert [str(item.paths[0]) for item in items] == [
        str(tmp_path / "b/ct"), str(tmp_path / "a.zip"), "/abs/x.nii.gz",
    ]  # fmt: skip
    assert {item.seeds for item in items} == {None}
    assert len({item.identity for item in items}) == 3


ROWS = [
    {"case_id": "one", "image_path": "a/ct.nii.gz", "coordX": 1.0, "coordY": 2.0, "coordZ": 3.0},
    {"case_id": "two", "image_path": "b/ct.nii.gz", "coordX": -1.5, "coordY": 0.0, "coordZ": 9.0},
    {"case_id": "one", "image_path": "a/ct.nii.gz", "coordX": 4.0, "coordY": 5.0, "coordZ": 6.0},
]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".ndjson", ".parquet"])
def test_points_in_every_format(tmp_path, suffix):
    path = tmp_path / f"manifest{suffix}"
    table = pd.DataFrame(ROWS)
    if suffix == ".csv":
        table.to_csv(path, index=False)
    elif suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    first, second = manifest_items(path)
    assert (first.item_id, second.item_id) == ("one", "two")
    assert isinstance(first.seeds, SeedTable)
    assert [seed.position_mm for seed in first.seeds.seeds] == [(1, 2, 3), (4, 5, 6)]
    assert [seed.position_mm for seed in second.seeds.seeds] == [(-1.5, 0, 9)]
    assert first.paths == (tmp_path / "a/ct.nii.gz",)


def test_a_file_of_lesions_in_a_row(tmp_path):
    path = write_manifest(tmp_path / "m.csv", "image_path,seeds_path", "ct,seg/a.dcm", "ct2,")
    first, second = manifest_items(path)
    assert first.seeds == tmp_path / "seg/a.dcm"
    assert second.seeds is None


def test_rows_with_points_and_rows_without(tmp_path):
    path = write_manifest(
        tmp_path / "m.csv", "image_path,coordX,coordY,coordZ", "a.nii,1,2,3", "dicom,,,"
    )
    first, second = manifest_items(path)
    assert isinstance(first.seeds, SeedTable)
    assert second.seeds is None


def test_a_row_without_an_image_is_an_item_all_the_same(tmp_path):
    path = write_manifest(tmp_path / "m.csv", "image_path,note", "a.nii,x", ",y", ",z")
    assert [item.item_id for item in manifest_items(path)] == ["a.nii", "row-2", "row-3"]


def test_the_identity_follows_the_files_and_the_row(tmp_path):
    write_volume(tmp_path / "a.nii.gz")
    (tmp_path / "dicom" / "deep").mkdir(parents=True)
    (tmp_path / "dicom" / "deep" / "1").write_bytes(b"1")
    rows = ["image_path,seeds_path", "a.nii.gz,", "dicom,seg.dcm"]
    path = write_manifest(tmp_path / "m.csv", *rows)

    def identities():
        return [item.identity for item in manifest_items(path)]

    first = identities()
    assert identities() == first
    os.utime(tmp_path / "a.nii.gz", ns=(1, 1))
    second = identities()
    assert [a == b for a, b in zip(first, second, strict=True)] == [False, True]
    (tmp_path / "dicom" / "deep" / "2").write_bytes(b"2")
    third = identities()
    assert [a == b for a, b in zip(second, third, strict=True)] == [True, False]
    (tmp_path / "seg.dcm").write_bytes(b"")
    assert identities()[1] != third[1]
    path.write_text("\n".join([*rows[:2], "dicom,other.dcm"]))
    assert identities()[0] == third[0]


@pytest.mark.parametrize(
    ("rows", "error", "sentence"),
    [
        (["path", "a"], BatchError, r"no column image_path; add it, and set columns apart by comm"),
        (["image_path;note", "a;b"], BatchError, r"no column image_path; add it"),
        (["image_path"], BatchError, r"no rows; add one for each image\."),
        (
            ["image_path,seeds_path,coordX,coordY,coordZ", "a,1.dcm,1,2,3"],
            BatchError,
            r"gives case a both seeds_path and a point; leave one of them empty\.",
        ),
        (
            ["case_id,image_path", "x,a", "x,b"],
            BatchError,
            r"gives case x 2 values of image_path; give each its own case_id\.",
        ),
        (
            ["image_path,seeds_path", "a,1.dcm", "a,2.dcm"],
            BatchError,
            r"gives case a 2 values of seeds_path",
        ),
        (["image_path,coordX", "a,1"], SeedTableError, r"lacks coordY, coordZ"),
        (["image_path", "a,b"], SeedTableError, r"Row 1 of the table .* has 2 cells"),
        (["image_path,image_path", "a,b"], SeedTableError, r"twice"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, rows, error, sentence):
    with pytest.raises(error, match=sentence):
        manifest_items(write_manifest(tmp_path / "m.csv", *rows))


def test_a_manifest_that_is_not_there(tmp_path):
    with pytest.raises(InputNotFoundError, match="does not exist"):
        manifest_items(tmp_path / "m.csv")


def test_names_that_no_file_can_have(tmp_path):
    path = tmp_path / "m.jsonl"
    rows = [{"image_path": name} for name in ("a\0b", "x" * 5000, "\udcff", "\ud800", "💥")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = manifest_items(path)
    assert len(items) == 5
    for item in items:
        assert len(item.item_id.encode()) < 100


def test_long_names_are_cut_and_stay_apart(tmp_path):
    names = ["x" * 1_000_000 + end for end in "ab"]
    path = tmp_path / "m.jsonl"
    rows = [{"image_path": f"{name[-1]}.nii", "case_id": name} for name in names]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = (item.item_id for item in manifest_items(path))
    assert first.startswith("x" * 64 + "...")
    assert len(first) < 100
    assert first != second


def test_volume_files_of_one_name_keep_their_cases_apart(batch, tmp_path):
    for name in ("p1", "p2"):
        write_volume(tmp_path / name / "CT.nii.gz", seed=len(name))
    path = write_manifest(
        tmp_path / "m.csv",
        "case_id,image_path,coordX,coordY,coordZ",
        "first,p1/CT.nii.gz,0,0,0",
        ",p2/CT.nii.gz,1,1,1",
        ",p2/CT.nii.gz,99,1,1",
    )
    run = batch(path)
    assert [row["case_id"] for row in run.rows("case")] == ["first", "p2/CT.nii.gz"]
    assert [row["state"] for row in run.rows("case")] == ["done", "partial"]
    assert run.result.exit_code == 2
    features = pd.read_parquet(run.output / "features.parquet")
    assert features["case_id"].tolist() == ["first", "p2/CT.nii.gz"]


def test_files_that_are_not_there_fail_and_their_neighbours_do_not(batch, tmp_path):
    write_volume(tmp_path / "a.nii.gz")
    path = write_manifest(
        tmp_path / "m.csv",
        "image_path,seeds_path,coordX,coordY,coordZ",
        "a.nii.gz,,0,0,0",
        "gone.nii.gz,,0,0,0",
        "a.nii.gz.dcm,gone.dcm,,,",
        ",,0,0,0",
        f"{'x' * 300},,0,0,0",
    )
    run = batch(path)
    found = {row["case_id"]: (row["state"], row["reason"]) for row in run.rows("case")}
    assert found == {
        "a.nii.gz": ("done", ""),
        "gone.nii.gz": ("failed", "input_not_found"),
        "a.nii.gz.dcm": ("failed", "input_not_found"),
        "row-4": ("failed", "input_not_found"),
        "x" * 300: ("failed", "unreadable_file"),
    }
    assert all(row["message"].endswith(".") for row in run.rows("case") if row["reason"])
    assert run.rows("case")[-1]["message"].endswith(
        "cannot be looked at (File name too long); correct it, or mend the permissions of its "
        "folders."
    )
