"""Seeds from JSON point files: 3D Slicer markups and MHub's coordinates, told by their content."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from oncofm.errors import InputNotFoundError, PointFileInvalidError, SeedInvalidError
from oncofm.notices import Notice
from oncofm.seeds.point_draft import PointDraft, number, text
from oncofm.seeds.seed import RejectedSeed, Seed, SeedSource
from oncofm.seeds.slicer_markups import is_markups, markups_points
from oncofm.seeds.table import (
    COORDINATE_COLUMNS,
    IMAGE_COLUMN,
    LESION_COLUMN,
    SERIES_COLUMN,
)

ROI_KEY = "Mhub ROI"
"""What MHub's coordinates call the lesion's label."""

_MAX_BYTES = 64 * 2**20
"""Far more than points that somebody placed; a larger file is something else."""


def read_points(path: Path) -> tuple[Seed | RejectedSeed, ...]:
    """Read the lesions of a JSON point file.

    Parameters
    ----------
    path : pathlib.Path
        3D Slicer markups (schema 1.0.0 to 1.0.3, LPS or RAS, mm or um), one object with
        ``coordX``, ``coordY``, ``coordZ`` in LPS mm, or a list of such objects, each with an
        optional ``Mhub ROI``. The name does not matter.

    Returns
    -------
    tuple of Seed or RejectedSeed
        Positions in LPS mm, ``point-<n>`` counted from 1 over the whole file. Every control
        point of a Fiducial and every ROI is a lesion; hidden ones carry the notice
        ``hidden_point``. What cannot be used is rejected with `SeedInvalidError`.

    Raises
    ------
    InputNotFoundError
        If the file does not exist.
    PointFileInvalidError
        If the file cannot be parsed, is something else or holds no point.
    """
    document = _load(path)
    recognised = _recognise(document)
    if recognised is None:
        raise PointFileInvalidError(
            f"{path} holds neither 3D Slicer markups nor objects with "
            f"{', '.join(COORDINATE_COLUMNS)}; export the points as markups JSON."
        )
    kind, read = recognised
    try:
        seeds = tuple(
            _seed(path, kind, n, draft) for n, draft in enumerate(read(document), start=1)
        )
    except RecursionError as error:
        raise _too_deep(path) from error
    if not seeds:
        raise PointFileInvalidError(f"{path} holds no point; place at least one and save it again.")
    return seeds


def is_point_file(path: Path) -> bool:
    """Tell a point file from a seed table by its content.

    Parameters
    ----------
    path : pathlib.Path
        Any file.

    Returns
    -------
    bool
        True for what `read_points` has a reader for. False for JSON lines with several objects,
        for one object with the seed table's ``image_path``, ``series_uid`` or ``lesion_id``, and
        for everything that is not JSON or cannot be read.
    """
    try:
        document = _load(path)
    except (InputNotFoundError, PointFileInvalidError):
        return False
    if (
        isinstance(document, dict)
        and {IMAGE_COLUMN, SERIES_COLUMN, LESION_COLUMN} & document.keys()
    ):
        return False
    return _recognise(document) is not None


def _load(path: Path) -> Any:
    try:
        if not path.is_file():
            raise InputNotFoundError(f"The point file {path} does not exist.")
        if path.stat().st_size > _MAX_BYTES:
            raise PointFileInvalidError(
                f"{path} is larger than {_MAX_BYTES // 2**20} MiB, which no point file is; give "
                "long lists as a seed table."
            )
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise PointFileInvalidError(
            f"The point file {path} cannot be read ({error.strerror or type(error).__name__}); "
            "mend its permissions."
        ) from error
    except UnicodeDecodeError as error:
        raise PointFileInvalidError(
            f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8."
        ) from error
    except json.JSONDecodeError as error:
        raise PointFileInvalidError(
            f"{path} is no JSON document (line {error.lineno}, column {error.colno}); export it "
            "again."
        ) from error
    except ValueError as error:
        raise PointFileInvalidError(
            f"{path} has a number with too many digits; export it again."
        ) from error
    except RecursionError as error:
        raise _too_deep(path) from error


def _too_deep(path: Path) -> PointFileInvalidError:
    return PointFileInvalidError(
        f"{path} is nested too deeply to be a point file; export the points again."
    )


_Reader = Callable[[Any], Iterator[PointDraft]]


def _recognise(document: Any) -> tuple[str, _Reader] | None:
    """Kind of the seeds' source and the reader that fits; None for something else."""
    if is_markups(document):
        return "markup", markups_points
    if _has_coordinates(document):
        return "json", _mhub_point
    if isinstance(document, list) and (not document or any(map(_has_coordinates, document))):
        return "json", _mhub_list
    return None


def _has_coordinates(item: Any) -> bool:
    return isinstance(item, dict) and any(name in item for name in COORDINATE_COLUMNS)


def _mhub_point(document: Mapping[str, Any]) -> Iterator[PointDraft]:
    yield _mhub_draft(document, "the only one")


def _mhub_list(document: list[Any]) -> Iterator[PointDraft]:
    for index, item in enumerate(document, start=1):
        yield _mhub_draft(item, f"element {index} of the list")


def _mhub_draft(item: Any, place: str) -> PointDraft:
    if not isinstance(item, dict):
        return PointDraft(place, fault="it is no JSON object; correct or remove it")
    label = text(item.get(ROI_KEY))
    x, y, z = (number(item.get(name)) for name in COORDINATE_COLUMNS)
    wrong = [
        name
        for name, value in zip(COORDINATE_COLUMNS, (x, y, z), strict=True)
        if not math.isfinite(value)
    ]
    if wrong:
        are = "is not a finite number" if len(wrong) == 1 else "are not finite numbers"
        return PointDraft(place, label, fault=f"{', '.join(wrong)} {are} (LPS millimetres)")
    return PointDraft(place, label, position_mm=(x, y, z))


def _seed(path: Path, kind: str, n: int, draft: PointDraft) -> Seed | RejectedSeed:
    lesion_id = f"point-{n}"
    source = SeedSource(
        kind,
        segment_number=n,
        segment_label=draft.label,
        segment_description=draft.description,
    )
    if draft.position_mm is None:
        error = SeedInvalidError(
            f"Point {n} of {path} ({draft.place}) cannot be used: {draft.fault}."
        )
        return RejectedSeed(lesion_id, source, error)
    notices = ()
    if draft.hidden:
        message = f"Point {n} ({draft.place}) is hidden in 3D Slicer; it is encoded all the same."
        notices = (Notice("hidden_point", message),)
    return Seed(lesion_id, draft.position_mm, source, draft.extent_mm, notices=notices)
