import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from oncofm.errors import OutputNotWritableError
from oncofm.results.files import atomic_path, prepare_output_folder
from oncofm.results.table import ResultTable, table_from_rows, write_table

SCHEMA = {"name": str, "number": int, "size_mm": float}
ROWS = [
    {"name": 'comma, "quote"', "number": 1, "size_mm": 0.1},
    {"name": "Läsion\nzwei", "number": None, "size_mm": 2.5},
    {"name": None, "number": 2**40, "size_mm": None},
]


def make_table() -> ResultTable:
    features = np.random.default_rng(0).random((3, 7), dtype=np.float32)
    features[1] = np.nan
    return ResultTable(
        table_from_rows(ROWS, SCHEMA), features, table_from_rows([{"end": "z"}] * 3, {"end": str})
    )


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_pandas_reads_back_the_same_values(tmp_path, suffix):
    table = make_table()
    path = tmp_path / f"table{suffix}"
    write_table(table, path)
    frame = pd.read_parquet(path) if suffix == ".parquet" else pd.read_csv(path)
    assert list(frame) == ["name", "number", "size_mm", *(f"pred_{i}" for i in range(7)), "end"]
    assert frame["name"][0] == 'comma, "quote"'
    assert frame["name"][1] == "Läsion\nzwei"
    assert pd.isna(frame["name"][2])
    assert frame["number"][2] == 2**40
    assert pd.isna(frame["number"][1])
    assert frame["size_mm"][0] == 0.1
    read = frame.filter(like="pred_").to_numpy(np.float32)
    np.testing.assert_array_equal(read, table.features)
    assert frame["end"].tolist() == ["z"] * 3


def test_missing_features_are_null_not_nan(tmp_path):
    write_table(make_table(), tmp_path / "t.parquet")
    column = pq.read_table(tmp_path / "t.parquet")["pred_3"]
    assert column.null_count == 1
    assert column.to_pylist()[1] is None


def test_a_table_without_rows_keeps_its_columns(tmp_path):
    empty = ResultTable(table_from_rows([], SCHEMA), np.empty((0, 2), np.float32))
    write_table(empty, tmp_path / "t.csv")
    assert list(pd.read_csv(tmp_path / "t.csv")) == [
        "name",
        "number",
        "size_mm",
        "pred_0",
        "pred_1",
    ]
    write_table(empty, tmp_path / "t.parquet")
    assert pq.read_schema(tmp_path / "t.parquet").names[-1] == "pred_1"


def test_same_table_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_table(make_table(), tmp_path / f"{name}.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "run.json"
    target.write_text("old")

    def interrupted():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise ValueError("stop")

    with pytest.raises(ValueError):
        interrupted()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputNotWritableError, match="choose a writable folder"):
        prepare_output_folder(tmp_path / "out")
