"""Parts: the rows of some finished items, in files that are written once and never changed.

A part has a file for each kind of table. Every row knows its item. Features are one column of
lists, since thousands of columns take longer to write than a few hundred rows take to compute.
"""

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from oncofm.errors import BatchError, OutputNotWritableError
from oncofm.results.files import atomic_path
from oncofm.results.table import ResultTable

KINDS = ("features", "predictions", "cases", "skipped")
ITEM_COLUMN, FEATURES_COLUMN = "_item", "_features"
ITEM_ID_COLUMN = "item_id"
"""What the tables call the first of these."""
PARTS = "parts"
"""Folder of the parts below the output."""


def write_part(
    folder: Path, part: int, tables: Mapping[str, Sequence[tuple[str, ResultTable]]]
) -> dict[str, str]:
    """Write a part; when this returns it is on disk.

    Parameters
    ----------
    folder : pathlib.Path
        The output folder.
    part : int
        Its number, not used before.
    tables : mapping of str to sequence of (str, ResultTable)
        Kind -> id of an item and its rows, for some items.

    Returns
    -------
    dict of str to str
        File -> SHA-256.

    Raises
    ------
    OutputNotWritableError
        If a file cannot be written.
    """
    import pyarrow.parquet as pq

    place = folder / PARTS
    try:
        place.mkdir(exist_ok=True)  # not its parents: without them the ledger is gone, too
    except OSError as error:
        raise OutputNotWritableError(
            f"{place} cannot be written ({error.strerror}); put back the output folder, or choose "
            "another, then run again."
        ) from error
    files = {}
    for kind, of_items in tables.items():
        if not of_items:
            continue
        path = place / _name(kind, part)
        table = pa.concat_tables([_with_item(rows, item) for item, rows in of_items])
        with atomic_path(path) as temporary:
            pq.write_table(table, temporary, compression="zstd", write_statistics=False)
        files[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return files


def remove_unknown(folder: Path, known: Iterable[str]) -> None:
    """Remove files that a process which was killed left behind."""
    kept = set(known)
    for path in (folder / PARTS).glob("*"):
        if path.name not in kept:
            path.unlink()
    for pattern in ("*.tmp", "*.probe"):
        for path in (*folder.glob(f".{pattern}"), *folder.glob(f"*/.{pattern}")):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def merge_parts(
    sources: Sequence[tuple[Path, Mapping[int, Mapping[str, str]]]],
    wanted: Sequence[tuple[int, int, str]],
    kind: str,
) -> Iterator[ResultTable]:
    """Put the rows of parts into one order, some at a time.

    Parameters
    ----------
    sources : sequence of (pathlib.Path, mapping)
        Output folders, each with its parts and their files with SHA-256.
    wanted : sequence of (int, int, str)
        Number of the source, part, and id of an item, in the order of the rows.
    kind : str
        One of `KINDS`.

    Yields
    ------
    ResultTable
        Rows of some items; at least one table, which may be empty, if a part has such rows.

    Raises
    ------
    BatchError
        If a part is missing or was changed.
    """

    @lru_cache(maxsize=4 * len(sources))  # as many as are in progress at one place of the plan
    def rows_of(source: int, part: int) -> tuple[pa.Table, dict[str, tuple[int, int]]]:
        folder, parts = sources[source]
        table = _read_part(folder, part, parts[part], kind)
        return table, _ranges(table)

    block: list[pa.Table] = []
    n_rows = n_yielded = 0
    empty: pa.Table | None = None
    for source, part, item in wanted:
        if _name(kind, part) not in sources[source][1][part]:
            continue
        table, ranges = rows_of(source, part)
        if item not in ranges:
            empty = table
            continue
        start, stop = ranges[item]
        block.append(table.slice(start, stop - start))
        n_rows += stop - start
        if n_rows >= _ROWS_AT_A_TIME:
            yield _result(pa.concat_tables(block))
            block, n_rows, n_yielded = [], 0, n_yielded + 1
    if block:
        yield _result(pa.concat_tables(block))
    elif empty is not None and not n_yielded:
        yield _result(empty.slice(0, 0))


_ROWS_AT_A_TIME = 4096
"""64 MiB of features; and a Parquet writer keeps 3.4 MB about each such block until it ends."""


def _name(kind: str, part: int) -> str:
    return f"{kind}-{part:06d}.parquet"


def _with_item(table: ResultTable, item: str) -> pa.Table:
    items = pa.array([item] * table.columns.num_rows, pa.string())
    columns = table.columns.append_column(ITEM_COLUMN, items)
    if table.features is None:
        return columns
    values = pa.array(np.ascontiguousarray(table.features, np.float32).ravel())
    lists = pa.FixedSizeListArray.from_arrays(values, table.features.shape[1])
    return columns.append_column(FEATURES_COLUMN, lists)


def _read_part(folder: Path, part: int, files: Mapping[str, str], kind: str) -> pa.Table:
    import pyarrow.parquet as pq

    name = _name(kind, part)
    path = folder / PARTS / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BatchError(
            f"{path} cannot be read; restore it, or compute the batch anew."
        ) from error
    if hashlib.sha256(data).hexdigest() != files[name]:
        raise BatchError(f"{path} is not what was written; restore it, or compute the batch anew.")
    return pq.read_table(pa.BufferReader(data))


def _ranges(table: pa.Table) -> dict[str, tuple[int, int]]:
    """Item -> first row and the one behind the last; an item's rows stand together."""
    ranges: dict[str, tuple[int, int]] = {}
    for row, item in enumerate(table[ITEM_COLUMN].to_pylist()):
        ranges[item] = (ranges.get(item, (row, row))[0], row + 1)
    return ranges


def without_items(rows: ResultTable) -> ResultTable:
    """Give a table without rows the columns that `merge_parts` would give it."""
    return _result(_with_item(rows, ""))


def _result(table: pa.Table) -> ResultTable:
    features = None
    if FEATURES_COLUMN in table.column_names:
        column: Any = table[FEATURES_COLUMN].combine_chunks()
        width = table.schema.field(FEATURES_COLUMN).type.list_size
        features = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
        table = table.drop_columns([FEATURES_COLUMN])
    # In one piece, so that the file does not depend on how rows were spread over parts.
    columns = table.rename_columns({ITEM_COLUMN: ITEM_ID_COLUMN}).combine_chunks()
    return ResultTable(columns, features)
