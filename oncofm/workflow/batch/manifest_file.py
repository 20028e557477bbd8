"""The list of a study's cases: a table with an image, and where its lesions are, in each row."""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from oncofm.dicomweb.address import is_url, printable
from oncofm.errors import BatchError
from oncofm.seeds.table import (
    COORDINATE_COLUMNS,
    IMAGE_COLUMN,
    SeedTable,
    Value,
    read_table_columns,
    seed_table,
)
from oncofm.workflow.batch.items import Item, as_text

CASE_COLUMN, SEEDS_COLUMN = "case_id", "seeds_path"
_LONGEST_NAME, _SHOWN = 4096, 64
"""Characters: of a path on Linux, and what is left of a longer one."""
SUFFIXES = (".csv", ".jsonl", ".ndjson", ".parquet")


def manifest_items(path: Path, fetched: Path | None = None) -> list[Item]:
    """Read a manifest.

    Parameters
    ----------
    path : pathlib.Path
        CSV, JSON lines or Parquet. ``image_path``: a DICOM folder or archive, or a NIfTI, NRRD or
        MetaImage file. Where the lesions are: ``seeds_path`` (SEG, RTSTRUCT, SR, label mask,
        markups, table), or ``coordX, coordY, coordZ`` in LPS mm, a row per lesion; else the
        DICOM objects in the folder. ``case_id``, optional, names an item; without it the image
        does. Relative paths count from the manifest's folder. Either path may be the address of
        a study, series or instance on a DICOMweb server.
    fetched : pathlib.Path or None
        Folder for what is fetched from there, a folder for each item; else temporary ones.

    Returns
    -------
    list of Item
        In the order of the first row of each.

    Raises
    ------
    BatchError
        If it has no rows or no ``image_path``, or a row contradicts another of its item.
    SeedTableError
        If it cannot be parsed.
    """
    columns = read_table_columns(path)
    if IMAGE_COLUMN not in columns:
        raise BatchError(
            f"The manifest {path} has no column {IMAGE_COLUMN}; add it, and set columns apart by "
            "commas."
        )
    if not columns[IMAGE_COLUMN]:
        raise BatchError(f"The manifest {path} has no rows; add one for each image.")
    items = [
        _item(position, item_id, rows, columns, path)
        for position, (item_id, rows) in enumerate(_rows_by_item(columns).items())
    ]
    if fetched is None:
        return items
    return [replace(item, folder=fetched / str(item.position)) for item in items]


def _rows_by_item(columns: dict[str, list]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    images = columns[IMAGE_COLUMN]
    names = columns.get(CASE_COLUMN, [None] * len(images))
    for row, (name, image) in enumerate(zip(names, images, strict=True)):
        item_id = _text(name) or _name(_text(image)) or f"row-{row + 1}"
        rows.setdefault(_short(item_id), []).append(row)
    return rows


def _short(item_id: str) -> str:
    """Cut a name that no file could have: it would stand in every message, row and report."""
    if len(item_id) <= _LONGEST_NAME:
        return item_id
    return f"{item_id[:_SHOWN]}...{hashlib.sha256(item_id.encode()).hexdigest()[:16]}"


def _name(image: str) -> str:
    """Call an item by its image; an address must not have a password, but it may."""
    return printable(image) if is_url(image) else image


def _item(
    position: int, item_id: str, rows: Sequence[int], columns: dict[str, list], manifest: Path
) -> Item:
    own: dict[str, list[Value]] = {
        name: [values[row] for row in rows] for name, values in columns.items()
    }
    image = _only(own[IMAGE_COLUMN], IMAGE_COLUMN, item_id, manifest)
    listed = _only(own.get(SEEDS_COLUMN, [None]), SEEDS_COLUMN, item_id, manifest)
    image_url, seeds_url = (text if is_url(text) else "" for text in (image, listed))
    paths = [_place(image, manifest)] if image and not image_url else []
    seeds: Path | SeedTable | None = _place(listed, manifest) if listed and not seeds_url else None
    points = [own[name] for name in COORDINATE_COLUMNS if name in own]
    has_points = any(_text(value) for values in points for value in values)
    if listed and has_points:
        raise BatchError(
            f"The manifest {manifest} gives case {item_id} both {SEEDS_COLUMN} and a point; leave "
            "one of them empty."
        )
    if image and has_points:
        placed: list[Value] = [str(path) for path in paths or (image_url,)] * len(rows)
        seeds = seed_table(manifest, {**own, IMAGE_COLUMN: placed})
    identity = [repr(sorted(own.items()))]
    for path in (*paths, *([seeds] if isinstance(seeds, Path) else [])):
        identity += [repr(facts) for facts in _facts(path)]
    digest = hashlib.sha256("\n".join(identity).encode(errors="surrogatepass")).hexdigest()
    return Item(position, item_id, digest, tuple(paths), seeds, image_url, seeds_url)


def _only(values: Sequence[Any], column: str, item_id: str, manifest: Path) -> str:
    found = {_text(value) for value in values}
    if len(found) > 1:
        raise BatchError(
            f"The manifest {manifest} gives case {item_id} {len(found)} values of {column}; give "
            "each its own case_id."
        )
    return found.pop()


def _text(value: Any) -> str:
    return "" if value is None else as_text(str(value).strip())


def _place(text: str, manifest: Path) -> Path:
    path = Path(text)
    return path if path.is_absolute() else manifest.parent / path


def _facts(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of each file; a file that is not there is the reader's business."""
    for file in _files(path):
        try:
            status = os.stat(file)  # noqa: PTH116 - texts, for there may be a million
        except (OSError, ValueError):
            yield (file, -1, -1)
            continue
        yield (file, status.st_size, status.st_mtime_ns)


def _files(path: Path) -> list[str]:
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):  # not there, or no name that a file could have
        is_folder = False
    if not is_folder:
        return [str(path)]
    below = os.walk(path)
    return sorted(os.path.join(folder, name) for folder, _, names in below for name in names)  # noqa: PTH118
