"""The ledger and the parts: what is done stays done, what is half done never was."""

import os
import sqlite3
import subprocess
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from oncofm.errors import BatchError, OutputNotWritableError
from oncofm.results.table import ResultTable
from oncofm.workflow.batch.items import Item
from oncofm.workflow.batch.ledger import Entry, open_ledger, read_ledger
from oncofm.workflow.batch.parts import merge_parts, remove_unknown, write_part


def entry(item_id, position=0, part=1, **other):
    values = {"identity": "i", "configuration": "c", "state": "done", "reason": "", "message": ""}
    numbers = {"n_lesions": 2, "n_done": 2, "attempt": 1, "finished_at": "2026-01-01T00:00:00"}
    return Entry(item_id=item_id, position=position, part=part, **(values | numbers | other))


def test_what_is_committed_is_read_back(tmp_path):
    entries = [entry("b", 1), entry("a", 0, state="failed", reason="x", message="Ä.", n_done=0)]
    with open_ledger(tmp_path) as ledger:
        ledger.commit(1, {"features-000001.parquet": "00"}, entries)
        ledger.commit(2, {}, [entry("b", 1, part=2, attempt=2)])
        ledger.note(one="1", two="2")
    with read_ledger(tmp_path) as ledger:
        assert list(ledger.entries()) == ["a", "b"]
        assert ledger.entries()["a"] == entries[1]
        assert ledger.entries()["b"].attempt == 2
        assert ledger.parts() == {1: {"features-000001.parquet": "00"}, 2: {}}
        assert (ledger.fact("two"), ledger.fact("three")) == ("2", None)


def test_results_are_those_of_the_plan_and_the_configuration(tmp_path):
    with open_ledger(tmp_path) as ledger:
        entries = [entry("a", 0), entry("b", 1), entry("c", 2, configuration="old")]
        ledger.commit(1, {}, entries)
        ledger.note(digest="c")
        ledger.place([Item(5, "a", "i"), Item(4, "c", "i"), Item(3, "new", "i")])
        assert list(ledger.entries()) == ["b", "c", "a"]
        assert {key: each.position for key, each in ledger.results().items()} == {"a": 5}


def test_a_second_process_is_refused(tmp_path):
    with open_ledger(tmp_path):
        with (
            pytest.raises(BatchError, match=r"Another process writes to .*; wait for it"),
            open_ledger(tmp_path),
        ):
            pass
        with read_ledger(tmp_path) as reading:
            assert reading.entries() == {}
    with open_ledger(tmp_path):
        pass


def test_a_lock_that_cannot_be_made(tmp_path):
    (tmp_path / "ledger.lock").mkdir()
    with pytest.raises(BatchError, match=r"cannot be locked .*local disk"), open_ledger(tmp_path):
        pass


def test_errors_of_the_work_are_not_taken_for_those_of_the_lock(tmp_path):
    with pytest.raises(FileNotFoundError), open_ledger(tmp_path):
        (tmp_path / "nothing").read_bytes()


def test_a_ledger_of_another_version(tmp_path):
    with open_ledger(tmp_path) as ledger:
        ledger.note(version="7")
    for opener in (open_ledger, read_ledger):
        with pytest.raises(BatchError, match="is of version 7, this program writes 1"):
            opener(tmp_path).__enter__()


@pytest.mark.parametrize("content", [b"no database " * 500, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_broken_ledger(tmp_path, content):
    (tmp_path / "ledger.sqlite").write_bytes(content)
    for opener in (open_ledger, read_ledger):
        with pytest.raises(BatchError, match=r"ledger .* cannot be used .* restore it"):
            opener(tmp_path).__enter__()


def test_a_folder_without_a_batch(tmp_path):
    with pytest.raises(BatchError, match="holds no batch"), read_ledger(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as database:
        database.execute("PRAGMA journal_mode = WAL")  # and then its process was killed
    with pytest.raises(BatchError, match="holds no batch"), read_ledger(tmp_path):
        pass
    with open_ledger(tmp_path):
        pass
    with read_ledger(tmp_path) as ledger:
        assert ledger.results() == {}


def test_a_transaction_is_all_or_nothing(tmp_path):
    with open_ledger(tmp_path) as ledger:
        ledger.commit(1, {}, [entry("a")])
        with pytest.raises(sqlite3.IntegrityError):
            ledger.commit(2, {}, [entry("b", part=2), entry("c", None, part=2)])
        assert list(ledger.entries()) == ["a"]
        assert list(ledger.parts()) == [1]


def test_who_reads_while_it_is_closed_stops_nothing(tmp_path):
    with open_ledger(tmp_path) as ledger:
        ledger.commit(1, {}, [entry("a")])
        reading = read_ledger(tmp_path)
        other = reading.__enter__()
    assert list(other.entries()) == ["a"]
    reading.__exit__(None, None, None)
    with open_ledger(tmp_path) as ledger:
        assert list(ledger.entries()) == ["a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger.lock", "ledger.sqlite"]


def test_a_ledger_on_a_read_only_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        with open_ledger(disk) as ledger:
            ledger.commit(1, {}, [entry("a")])
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with read_ledger(disk) as ledger:
            assert list(ledger.entries()) == ["a"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# --- parts --------------------------------------------------------------------------------


def table(name, n_rows, features=True):
    values = np.arange(n_rows * 3, dtype=np.float32).reshape(n_rows, 3) + len(name)
    columns = pa.table({"name": pa.array([f"{name}{row}" for row in range(n_rows)], pa.string())})
    return ResultTable(columns, values if features else None)


def write(folder, part, *names_and_rows):
    rows = [(name, table(name, n)) for name, n in names_and_rows]
    return write_part(folder, part, {"features": rows})


def merged(sources, wanted):
    tables = [rows.to_arrow() for rows in merge_parts(sources, wanted, "features")]
    return pa.concat_tables(tables).to_pydict()


def test_rows_come_in_the_order_that_is_asked_for(tmp_path):
    parts = {1: write(tmp_path, 1, ("c", 2), ("a", 1)), 2: write(tmp_path, 2, ("b", 0), ("d", 2))}
    wanted = [(0, 1, "a"), (0, 2, "b"), (0, 1, "c"), (0, 2, "d")]
    result = merged([(tmp_path, parts)], wanted)
    assert result["name"] == ["a0", "c0", "c1", "d0", "d1"]
    assert result["pred_0"] == [1.0, 1.0, 4.0, 1.0, 4.0]
    assert merged([(tmp_path, parts)], [(0, 2, "b")])["name"] == []


def test_the_split_into_parts_cannot_be_seen(tmp_path):
    from oncofm.workflow.batch.finish import write_tables

    names = [(f"item-{n}", n % 4) for n in range(40)]
    outputs = []
    for size in (1, 7, 40):
        folder = tmp_path / str(size)
        folder.mkdir()
        parts, wanted = {}, []
        for part, start in enumerate(range(0, 40, size)):
            some = names[start : start + size]
            tables = [(name, table(name, n)) for name, n in some]
            cases = [(name, case_rows(name)) for name, _ in some]
            parts[part] = write_part(folder, part, {"features": tables, "cases": cases})
            wanted += [(0, part, name) for name, _ in some]
        write_tables(folder, [(folder, parts)], wanted, with_predictions=False)
        outputs.append((folder / "features.parquet").read_bytes())
    assert outputs[0] == outputs[1] == outputs[2]
    assert pq.read_table(tmp_path / "7" / "features.parquet").num_rows == 60


def case_rows(name):
    names = {"level": ["case"], "state": ["done"], "reason": [""], "series_uid": [name]}
    return ResultTable(pa.table(names))


def test_many_rows_are_read_some_at_a_time(tmp_path):
    parts = {1: write(tmp_path, 1, ("a", 5000), ("b", 5000), ("c", 3))}
    wanted = [(0, 1, name) for name in "abc"]
    sizes = [len(rows.columns) for rows in merge_parts([(tmp_path, parts)], wanted, "features")]
    assert sizes == [5000, 5000, 3]


def test_a_part_is_read_once_however_sources_interleave(tmp_path, monkeypatch):
    from oncofm.workflow.batch import parts as parts_module

    sources, wanted = [], []
    for source in range(8):
        folder = tmp_path / str(source)
        folder.mkdir()
        items = [(f"{source}-{n}", 1) for n in range(10)]
        sources.append((folder, {1: write(folder, 1, *items)}))
    wanted = [(source, 1, f"{source}-{n}") for n in range(10) for source in range(8)]
    reads = []
    real = parts_module._read_part
    monkeypatch.setattr(parts_module, "_read_part", lambda *a: reads.append(a) or real(*a))
    assert len(merged(sources, wanted)["name"]) == 80
    assert len(reads) == 8


def test_a_damaged_part_is_named(tmp_path):
    parts = {1: write(tmp_path, 1, ("a", 2))}
    path = tmp_path / "parts" / "features-000001.parquet"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(BatchError, match=r"features-000001.parquet is not what was written"):
        merged([(tmp_path, parts)], [(0, 1, "a")])
    path.unlink()
    with pytest.raises(BatchError, match=r"features-000001.parquet cannot be read; restore it"):
        merged([(tmp_path, parts)], [(0, 1, "a")])


def test_what_a_killed_process_left_is_removed(tmp_path):
    known = write(tmp_path, 1, ("a", 1))
    write(tmp_path, 2, ("b", 1))
    (tmp_path / "sr").mkdir()
    for name in ("parts/.x.tmp", ".features.parquet.1.tmp", ".oncofm-1.probe", "sr/.a.dcm.1.tmp"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "mine.tmp").write_bytes(b"kept")
    remove_unknown(tmp_path, known)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["mine.tmp", "parts/features-000001.parquet"]


def test_a_part_that_cannot_be_written(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "features-000001.parquet").mkdir()
    with pytest.raises(OutputNotWritableError, match="cannot be written"):
        write(tmp_path, 1, ("a", 1))
    assert os.listdir(tmp_path / "parts") == ["features-000001.parquet"]  # noqa: PTH208


def test_the_ledger_survives_a_process_that_is_gone_without_a_word(tmp_path):
    with open_ledger(tmp_path) as ledger:
        ledger.commit(1, {}, [entry("a")])
        copy = tmp_path / "copy"
        copy.mkdir()
        for path in tmp_path.glob("ledger.sqlite*"):  # as they lie on the disk at this moment
            (copy / path.name).write_bytes(path.read_bytes())
    with closing(sqlite3.connect(copy / "ledger.sqlite")) as database:
        assert database.execute("SELECT item_id FROM items").fetchall() == [("a",)]
