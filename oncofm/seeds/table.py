"""Seed tables: CSV, JSON lines or Parquet with one lesion per row, points in LPS mm.

A row that cannot be used keeps its place as a `RejectedSeed`; the input's own columns come back
as they were, so that results can be put next to them.
"""

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from oncofm.errors import InputNotFoundError, SeedInvalidError, SeedTableError
from oncofm.notices import Notice
from oncofm.seeds.seed import RejectedSeed, Seed, SeedSource

COORDINATE_COLUMNS = ("coordX", "coordY", "coordZ")
IMAGE_COLUMN = "image_path"
SERIES_COLUMN = "series_uid"
LESION_COLUMN = "lesion_id"
LABEL_COLUMN = "label"

_TEXT_COLUMNS = (IMAGE_COLUMN, SERIES_COLUMN, LESION_COLUMN)
"""Never numbers: lesion 1.10 is not lesion 1.1."""

_INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})", re.ASCII)
_FLOAT = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|inf)", re.ASCII | re.IGNORECASE)
_IDENTIFIER = re.compile(r"[+-]?(0\d|\d{16,}$)", re.ASCII)
"""Leading zeros or more digits than a float holds: an identifier, not a number."""

Value = str | int | float | bool | None


@dataclass(frozen=True)
class SeedTable:
    """The rows of a seed table.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    columns : dict of str to list
        The input's own columns in their order, one value per row: a column of a CSV file is
        int or float where every cell is, else str; empty cells are None.
    seeds : tuple of Seed or RejectedSeed
        One per row, in the order of the rows.
    image_paths, series_uids : tuple of str
        One per row, as they stand in ``image_path`` and ``series_uid``; empty where absent.
    """

    path: Path
    columns: dict[str, list[Value]]
    seeds: tuple[Seed | RejectedSeed, ...]
    image_paths: tuple[str, ...]
    series_uids: tuple[str, ...]


def read_seed_table(path: Path) -> SeedTable:
    """Read a seed table.

    Parameters
    ----------
    path : pathlib.Path
        ``.csv`` (UTF-8, commas), ``.jsonl`` / ``.ndjson`` / ``.json`` (one object per line) or
        ``.parquet``, with the columns ``coordX, coordY, coordZ`` in LPS mm; optional are
        ``image_path``, ``series_uid``, ``lesion_id`` and ``label``.

    Returns
    -------
    SeedTable
        Rows without ``lesion_id`` are called ``row-<n>``, counted from 1. Where an id comes
        again for the same image and series, ``#2``, ``#3`` ... is put behind it, with the
        notice ``duplicate_lesion_id``. Rows without three finite coordinates are rejected with
        `SeedInvalidError`.

    Raises
    ------
    InputNotFoundError
        If the file does not exist.
    SeedTableError
        If the file cannot be parsed, lacks a coordinate column or has no rows.
    """
    return _seed_table(path, _read_raw(path))


def read_table_columns(path: Path) -> dict[str, list[Value]]:
    """Read a table of any kind, in the formats of seed tables.

    Parameters
    ----------
    path : pathlib.Path
        As for `read_seed_table`, with any columns.

    Returns
    -------
    dict of str to list
        As `SeedTable.columns`.

    Raises
    ------
    InputNotFoundError
        If the file does not exist.
    SeedTableError
        If the file, or a row of it, cannot be parsed.
    """
    raw = _read_raw(path)
    if raw.faults:
        row, fault = next(iter(raw.faults.items()))
        raise SeedTableError(f"Row {row + 1} of the table {path} cannot be used: {fault}.")
    return raw.columns


def _read_raw(path: Path) -> "_Raw":
    if not path.is_file():
        raise InputNotFoundError(f"The seed table {path} does not exist.")
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise SeedTableError(
            f"The seed table {path} is none of {', '.join(_READERS)}; rename or convert it."
        )
    try:
        return _READERS[suffix](path)
    except UnicodeDecodeError as error:
        raise SeedTableError(
            f"The seed table {path} is not UTF-8 (byte {error.start}); save it as UTF-8."
        ) from error


def seed_table(name: Path, columns: dict[str, list[Value]]) -> SeedTable:
    """Make a seed table of columns in memory.

    Parameters
    ----------
    name : pathlib.Path
        What to call it in messages; relative image paths also count from its folder.
    columns : dict of str to list
        Plain Python values, None where there is none; else as for `read_seed_table`.

    Raises
    ------
    SeedTableError
        If a coordinate column is absent or there are no rows.
    """
    return _seed_table(name, _Raw(columns, {}))


def _seed_table(path: Path, table: "_Raw") -> SeedTable:
    missing = [name for name in COORDINATE_COLUMNS if name not in table.columns]
    if missing:
        raise SeedTableError(
            f"The seed table {path} lacks {', '.join(missing)}; it has the columns "
            f"{', '.join(map(repr, table.columns)) or 'none'}{_separator_hint(table.columns)}."
        )
    n_rows = len(table.columns[COORDINATE_COLUMNS[0]])
    if n_rows == 0:
        raise SeedTableError(f"The seed table {path} has columns but no rows.")
    image_paths = _texts(table, IMAGE_COLUMN, n_rows)
    series_uids = _texts(table, SERIES_COLUMN, n_rows)
    return SeedTable(
        path=path,
        columns=table.columns,
        seeds=tuple(_seeds(table, image_paths, series_uids)),
        image_paths=image_paths,
        series_uids=series_uids,
    )


def require_images(table: SeedTable) -> SeedTable:
    """Insist on an image for every row.

    Parameters
    ----------
    table : SeedTable
        As read.

    Returns
    -------
    SeedTable
        With the rows that have an empty ``image_path`` rejected.

    Raises
    ------
    SeedTableError
        If there is no column ``image_path``.
    """
    if IMAGE_COLUMN not in table.columns:
        raise SeedTableError(
            f"The seed table {table.path} lacks {IMAGE_COLUMN}; it has the columns "
            f"{', '.join(map(repr, table.columns))}."
        )
    return replace(
        table,
        seeds=tuple(
            seed if image_path else _rejected(seed, row, f"{IMAGE_COLUMN} is empty")
            for row, (seed, image_path) in enumerate(
                zip(table.seeds, table.image_paths, strict=True), start=1
            )
        ),
    )


@dataclass(frozen=True)
class _Raw:
    """Columns as read, and what was wrong with single rows (by 0-based index)."""

    columns: dict[str, list[Value]]
    faults: dict[int, str]


def _read_csv(path: Path) -> _Raw:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        lines = (cells for cells in reader if cells)
        try:
            names = _column_names(next(lines, []), path)
            columns: list[list[str]] = [[] for _ in names]
            faults: dict[int, str] = {}
            for row, cells in enumerate(lines):
                if len(cells) > len(names):
                    faults[row] = f"it has {len(cells)} cells, the header has {len(names)}"
                padding = [""] * (len(names) - len(cells))
                for column, cell in zip(columns, cells + padding, strict=False):
                    column.append(cell)
        except csv.Error as error:
            raise SeedTableError(
                f"The seed table {path} is no CSV at line {reader.line_num}: {error}."
            ) from error
    typed: dict[str, list[Value]] = {
        name: [cell or None for cell in column] if name in _TEXT_COLUMNS else _typed(column)
        for name, column in zip(names, columns, strict=True)
    }
    return _Raw(typed, faults)


def _column_names(cells: Sequence[str], path: Path) -> list[str]:
    names = [cell.strip() or f"Unnamed: {index}" for index, cell in enumerate(cells)]
    if not names:
        raise SeedTableError(f"The seed table {path} is empty.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SeedTableError(f"The seed table {path} has the column {twice[0]!r} twice.")
    return names


def _typed(cells: Sequence[str]) -> list[Value]:
    """Turn a column of a text file into numbers where every filled cell is one."""
    filled = [stripped for cell in cells if (stripped := cell.strip())]
    if filled and all(map(_INTEGER.fullmatch, filled)):
        return [int(cell) if cell.strip() else None for cell in cells]
    if filled and all(_FLOAT.fullmatch(cell) and not _IDENTIFIER.match(cell) for cell in filled):
        return [float(cell) if cell.strip() else None for cell in cells]
    return [cell or None for cell in cells]


def _read_json_lines(path: Path) -> _Raw:
    rows: list[dict[str, Any]] = []
    faults: dict[int, str] = {}
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                faults[len(rows)] = "it is no JSON object"
                row = {}
            rows.append(row)
    if not rows:
        raise SeedTableError(f"The seed table {path} is empty.")
    if len(faults) == len(rows):
        raise SeedTableError(
            f"The seed table {path} has no line that is a JSON object; write one object per line."
        )
    names = list(dict.fromkeys(name for row in rows for name in row))
    return _Raw({name: _uniform([row.get(name) for row in rows]) for name in names}, faults)


def _uniform(values: list[Any]) -> list[Value]:
    """Keep a column of one JSON type; what cannot share a column becomes JSON text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    too_long = kinds == {int} and any(abs(value or 0) >= 2**63 for value in values)
    if len(kinds) <= 1 and not kinds & {dict, list} and not too_long:
        return values
    return [
        value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for value in values
    ]


def is_json_table(path: Path) -> bool:
    """Whether a JSON file is a seed table, one object per line, and no file of points."""
    from oncofm.seeds.points import is_point_file

    if is_point_file(path):
        return False
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = next((line for line in file if line.strip()), "")
        return isinstance(json.loads(first), dict)
    except (OSError, ValueError, RecursionError):
        return False


def _read_parquet(path: Path) -> _Raw:
    import pyarrow
    import pyarrow.parquet

    try:
        columns = pyarrow.parquet.read_table(path).to_pydict()
    except pyarrow.ArrowException as error:
        raise SeedTableError(f"The seed table {path} is no readable Parquet file.") from error
    return _Raw(columns, {})


_READERS = {
    ".csv": _read_csv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json_lines,
    ".parquet": _read_parquet,
}


def _seeds(
    table: _Raw, image_paths: Sequence[str], series_uids: Sequence[str]
) -> Iterator[Seed | RejectedSeed]:
    n_rows = len(image_paths)
    points = zip(*(table.columns[name] for name in COORDINATE_COLUMNS), strict=True)
    lesion_ids = _texts(table, LESION_COLUMN, n_rows)
    source_of = cache(lambda label: SeedSource("table", segment_label=label))
    used: dict[tuple[str, str, str], int] = {}
    for index, (point, label) in enumerate(
        zip(points, _texts(table, LABEL_COLUMN, n_rows), strict=True)
    ):
        place = (image_paths[index], series_uids[index])
        wanted = lesion_id = lesion_ids[index] or f"row-{index + 1}"
        while (*place, lesion_id) in used:
            used[(*place, wanted)] += 1
            lesion_id = f"{wanted}#{used[(*place, wanted)]}"
        used[(*place, lesion_id)] = 1
        x, y, z = map(_number, point)
        seed = Seed(lesion_id, (x, y, z), source_of(label))
        if lesion_id != wanted:
            message = f"Row {index + 1} has a lesion_id that was used before for this image."
            seed = replace(seed, notices=(Notice("duplicate_lesion_id", message),))
        fault = table.faults.get(index) or _coordinate_fault((x, y, z))
        yield _rejected(seed, index + 1, fault) if fault else seed


def _number(value: Value) -> float:
    """Read a coordinate; NaN if it is none."""
    if isinstance(value, str) and _FLOAT.fullmatch(value.strip()):
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
        return float(value)
    return math.nan


def _coordinate_fault(position_mm: Iterable[float]) -> str:
    """Say what is wrong with a point, without repeating cells that may hold anything."""
    wrong = [
        name
        for name, value in zip(COORDINATE_COLUMNS, position_mm, strict=True)
        if not math.isfinite(value)
    ]
    if not wrong:
        return ""
    are = "is not a finite number" if len(wrong) == 1 else "are not finite numbers"
    return f"{', '.join(wrong)} {are} (LPS millimetres, decimal point)"


def _rejected(seed: Seed | RejectedSeed, row: int, fault: str) -> RejectedSeed:
    if isinstance(seed, RejectedSeed):
        return seed
    error = SeedInvalidError(f"Row {row} of the seed table cannot be used: {fault}.")
    return RejectedSeed(seed.lesion_id, seed.source, error)


def _texts(table: _Raw, name: str, n_rows: int) -> tuple[str, ...]:
    """Values of an optional column as text, empty where there is none."""
    values = table.columns.get(name, [None] * n_rows)
    return tuple("" if value is None else str(value).strip() for value in values)


def _separator_hint(names: Iterable[str]) -> str:
    joined = "".join(names)
    if ";" in joined or "\t" in joined:
        return ", which look as if they were not separated by commas"
    return ""
