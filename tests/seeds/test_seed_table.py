"""Seed tables: nothing of the input is lost, and no bad row ends a batch."""

import json
import math

import pandas as pd
import pytest

from oncofm.errors import InputNotFoundError, SeedInvalidError, SeedTableError
from oncofm.seeds.seed import RejectedSeed, Seed
from oncofm.seeds.table import read_seed_table, require_images

HEADER = "image_path,coordX,coordY,coordZ"


def table(tmp_path, text: str, name: str = "seeds.csv", encoding: str = "utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return read_seed_table(path)


def test_upstreams_columns(tmp_path):
    found = table(tmp_path, f"{HEADER}\na/ct.nii,-21.858572281959368,-120.5,-611.25\nb.nii,1,2,3\n")
    assert found.seeds == (
        Seed("row-1", (-21.858572281959368, -120.5, -611.25), found.seeds[0].source),
        Seed("row-2", (1.0, 2.0, 3.0), found.seeds[1].source),
    )
    assert found.seeds[0].source.kind == "table"
    assert found.image_paths == ("a/ct.nii", "b.nii")
    assert found.series_uids == ("", "")
    assert list(found.columns) == HEADER.split(",")


def test_optional_columns(tmp_path):
    found = table(
        tmp_path,
        "series_uid,lesion_id,label,coordX,coordY,coordZ\n1.2.3,T1,tumour,1,2,3\n1.2.4,,,4,5,6\n",
    )
    assert [seed.lesion_id for seed in found.seeds] == ["T1", "row-2"]
    assert [seed.source.segment_label for seed in found.seeds] == ["tumour", ""]
    assert found.series_uids == ("1.2.3", "1.2.4")
    assert found.image_paths == ("", "")


def test_own_columns_come_back_as_they_were(tmp_path):
    text = (
        "coordZ,PatientID,age,score,site,note,coordX,coordY,image_path,mixed,huge\n"
        '3,007,61,0.5,"Lunge, rechts größer",,1,2,ct.nii,1,12345678901234567890\n'
        "30,042,,1e-3,Leber,x,10,20,ct.nii,b,3\n"
    )
    columns = table(tmp_path, text).columns
    assert columns == {
        "coordZ": [3, 30],
        "PatientID": ["007", "042"],
        "age": [61, None],
        "score": [0.5, 0.001],
        "site": ["Lunge, rechts größer", "Leber"],
        "note": [None, "x"],
        "coordX": [1, 10],
        "coordY": [2, 20],
        "image_path": ["ct.nii", "ct.nii"],
        "mixed": ["1", "b"],
        "huge": ["12345678901234567890", "3"],
    }
    assert [type(value) for value in columns["coordZ"]] == [int, int]


def test_ids_that_look_like_numbers_stay_apart(tmp_path):
    found = table(tmp_path, "lesion_id,coordX,coordY,coordZ\n1.10,1,2,3\n1.1,1,2,3\n")
    assert [seed.lesion_id for seed in found.seeds] == ["1.10", "1.1"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_byte_order_mark_and_line_ends(tmp_path, encoding, newline):
    text = newline.join([HEADER, "größer/ö.nii,1,2,3", "", '"a,b ""c"".nii",4,5,6', ""])
    found = table(tmp_path, text, encoding=encoding)
    assert found.image_paths == ("größer/ö.nii", 'a,b "c".nii')
    assert [seed.position_mm for seed in found.seeds] == [(1, 2, 3), (4, 5, 6)]


def test_a_table_that_pandas_wrote_with_its_index(tmp_path):
    frame = pd.DataFrame({"image_path": ["a.nii"], "coordX": [1.5], "coordY": [2], "coordZ": [3]})
    frame.to_csv(tmp_path / "seeds.csv")
    found = read_seed_table(tmp_path / "seeds.csv")
    assert list(found.columns) == list(pd.read_csv(tmp_path / "seeds.csv").columns)
    assert found.seeds[0].position_mm == (1.5, 2, 3)


@pytest.mark.parametrize(
    "cells",
    [
        "a.nii,,2,3",
        "a.nii,abc,2,3",
        "a.nii,nan,2,3",
        "a.nii,1,inf,3",
        "a.nii,1,2",
        "a.nii",
        'a.nii,"1,5",2,3',
        "a.nii,1_000,2,3",
        "a.nii,1,2,3,4",
        ",,,",
    ],
)
def test_a_bad_row_keeps_its_place(tmp_path, cells):
    found = table(tmp_path, f"{HEADER}\nfirst.nii,1,2,3\n{cells}\nlast.nii,4,5,6\n")
    assert [type(seed) for seed in found.seeds] == [Seed, RejectedSeed, Seed]
    bad = found.seeds[1]
    assert bad.lesion_id == "row-2"
    assert isinstance(bad.error, SeedInvalidError)
    assert str(bad.error).startswith("Row 2 of the seed table cannot be used: ")
    assert "abc" not in str(bad.error)  # a cell may hold anything, a name too
    assert found.seeds[2].position_mm == (4, 5, 6)
    assert all(len(column) == 3 for column in found.columns.values())


def test_the_sentence_names_the_columns(tmp_path):
    found = table(tmp_path, f"{HEADER}\na.nii,1,x,y\nb.nii,1,2,z\n")
    assert "coordY, coordZ are not finite numbers" in str(found.seeds[0].error)
    assert "coordZ is not a finite number" in str(found.seeds[1].error)


def test_an_id_that_comes_again_gets_a_number(tmp_path):
    text = "image_path,lesion_id,coordX,coordY,coordZ\n"
    text += "".join(f"{row},1,2,3\n" for row in ["a,T1", "a,T1", "b,T1", "a,T1#2", "a,T1", "a,"])
    seeds = table(tmp_path, text).seeds
    assert [seed.lesion_id for seed in seeds] == ["T1", "T1#2", "T1", "T1#2#2", "T1#3", "row-6"]
    flagged = [bool(seed.notices) for seed in seeds]
    assert flagged == [False, True, False, True, True, False]
    assert seeds[1].notices[0].code == "duplicate_lesion_id"


def test_very_many_rows_of_one_id(tmp_path):
    text = "lesion_id,coordX,coordY,coordZ\n" + "T,1,2,3\n" * 20_000
    seeds = table(tmp_path, text).seeds
    assert len({seed.lesion_id for seed in seeds}) == 20_000


def test_images_may_be_insisted_on(tmp_path):
    found = require_images(table(tmp_path, f"{HEADER}\n,1,2,3\na.nii,1,2,3\n ,x,2,3\n"))
    assert [type(seed) for seed in found.seeds] == [RejectedSeed, Seed, RejectedSeed]
    assert "Row 1" in str(found.seeds[0].error)
    assert "image_path is empty" in str(found.seeds[0].error)
    assert "coordX" in str(found.seeds[2].error)
    without = table(tmp_path, "coordX,coordY,coordZ\n1,2,3\n")
    with pytest.raises(SeedTableError, match="lacks image_path; it has the columns 'coordX'"):
        require_images(without)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        (f"{HEADER}\n", "has columns but no rows"),
        ("image_path,x,y,z\na,1,2,3\n", "lacks coordX, coordY, coordZ; it has the columns 'image"),
        ("image_path;coordX;coordY;coordZ\na;1;2;3\n", "not separated by commas"),
        ("coordX,coordX,coordY,coordZ\n1,1,2,3\n", "has the column 'coordX' twice"),
        (f'{HEADER}\n"a.nii,1,2,3\n', "is no CSV at line 2"),
        (f'{HEADER}\n"a"b,1,2,3\n', "is no CSV at line 2"),
    ],
)
def test_a_table_that_cannot_be_understood(tmp_path, text, sentence):
    with pytest.raises(SeedTableError, match=sentence):
        table(tmp_path, text)


def test_other_encodings_are_named(tmp_path):
    with pytest.raises(SeedTableError, match=r"not UTF-8 \(byte 34\)"):
        table(tmp_path, f"{HEADER}\ngröße.nii,1,2,3\n", encoding="latin-1")
    with pytest.raises(SeedTableError, match="not UTF-8"):
        table(tmp_path, f"{HEADER}\na.nii,1,2,3\n", encoding="utf-16")


def test_other_files(tmp_path):
    with pytest.raises(InputNotFoundError, match=r"absent\.csv"):
        read_seed_table(tmp_path / "absent.csv")
    with pytest.raises(SeedTableError, match=r"none of \.csv, "):
        table(tmp_path, HEADER, name="seeds.xlsx")


# --- JSON lines and Parquet ----------------------------------------------------------------


def lines(*rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.mark.parametrize("name", ["seeds.jsonl", "seeds.ndjson", "seeds.JSON"])
def test_json_lines_are_the_same_table(tmp_path, name):
    rows = [
        {"image_path": "ö.nii", "coordX": 1.25, "coordY": -2, "coordZ": "3.5", "lesion_id": 7},
        {"image_path": "b.nii", "coordX": 1, "coordY": None, "coordZ": 3, "site": "lung"},
    ]
    found = table(tmp_path, lines(*rows), name=name)
    assert found.seeds[0].position_mm == (1.25, -2.0, 3.5)
    assert found.seeds[0].lesion_id == "7"
    assert isinstance(found.seeds[1], RejectedSeed)
    assert found.image_paths == ("ö.nii", "b.nii")
    assert found.columns["site"] == [None, "lung"]
    assert found.columns["coordX"] == [1.25, 1.0]


def test_a_bad_line_keeps_its_place(tmp_path):
    good = {"coordX": 1, "coordY": 2, "coordZ": 3}
    text = lines(good) + "{broken\n" + lines([1, 2], good | {"coordX": True}, good)
    found = table(tmp_path, text, name="seeds.jsonl")
    kinds = [isinstance(seed, Seed) for seed in found.seeds]
    assert kinds == [True, False, False, False, True]
    assert "no JSON object" in str(found.seeds[1].error)
    assert found.columns["coordY"] == [2, None, None, 2, 2]


def test_json_values_that_share_no_type_become_text(tmp_path):
    good = {"coordX": 1, "coordY": 2, "coordZ": 3}
    text = lines(
        good | {"a": 1, "b": {"k": [1]}, "c": 2**70}, good | {"a": "x", "b": [2], "c": None}
    )
    columns = table(tmp_path, text, name="seeds.jsonl").columns
    assert columns["a"] == ["1", "x"]
    assert columns["b"] == ['{"k": [1]}', "[2]"]
    assert columns["c"] == [str(2**70), None]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ('[{"coordX": 1}]', "no line that is a JSON object"),
        ('{"x": 1}\n', "lacks coordX, coordY, coordZ; it has the columns 'x'"),
    ],
)
def test_json_that_is_no_table(tmp_path, text, sentence):
    with pytest.raises(SeedTableError, match=sentence):
        table(tmp_path, text, name="seeds.jsonl")


def test_parquet(tmp_path):
    frame = pd.DataFrame(
        {
            "image_path": ["a.nii", None],
            "coordX": [1.5, math.nan],
            "coordY": [2, 3],
            "coordZ": [4, 5],
        }
    )
    frame.to_parquet(tmp_path / "seeds.parquet")
    found = read_seed_table(tmp_path / "seeds.parquet")
    assert found.seeds[0].position_mm == (1.5, 2.0, 4.0)
    assert isinstance(found.seeds[1], RejectedSeed)
    assert found.image_paths == ("a.nii", "")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(SeedTableError, match="no readable Parquet"):
        read_seed_table(tmp_path / "broken.parquet")
