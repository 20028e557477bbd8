"""Upstream's job: a table of seeds in, the same table with features out."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from oncofm.errors import Rejected, UnreadableFileError
from oncofm.imaging.formats import is_volume_file
from oncofm.imaging.patch import PatchSpec
from oncofm.imaging.scan import scan_dicom
from oncofm.results.manifest import Provenance, provenance
from oncofm.results.table import ResultTable, table_from_rows
from oncofm.seeds.seed import Seed
from oncofm.seeds.table import SeedTable, read_seed_table, require_images, seed_table
from oncofm.workflow.assign import choose_draft, reject
from oncofm.workflow.case import Case, CaseState, LesionOutcome
from oncofm.workflow.describe import configure
from oncofm.workflow.drafts import find_volumes
from oncofm.workflow.job import start_loading
from oncofm.workflow.run import run_cases
from oncofm.workflow.settings import Settings
from oncofm.workflow.tabulate import join_warnings
from oncofm.workflow.timing import Timing

if TYPE_CHECKING:
    import pandas

Report = Callable[[dict[str, Any]], None]
_TRAILING = {"state": str, "reason": str, "message": str, "padded_fraction": float, "warnings": str}


def extract_features(
    seeds: "str | Path | pandas.DataFrame",
    weights: str | Path | None = None,
    *,
    profile: Literal["mhub", "paper"] = "mhub",
    device: str = "auto",
    precision: str = "fp32",
    batch_size: int | None = None,
) -> "pandas.DataFrame":
    """Compute FMCIB features for every row of a seed table.

    Parameters
    ----------
    seeds : path or pandas.DataFrame
        Table with the columns ``image_path, coordX, coordY, coordZ`` (LPS mm), optionally
        ``lesion_id`` and ``series_uid``. An image is a NIfTI, NRRD or MetaImage file or a DICOM
        folder or zip; relative paths count from the working directory, then from the table.
    weights : path, optional
        Weights file; by default ``$ONCOFM_WEIGHTS``, then where ``oncofm weights fetch`` put it.
    profile : {"mhub", "paper"}
        Preprocessing.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    precision : {"fp32", "tf32", "bf16"}
        Arithmetic of the encoder; tf32 takes a GPU.
    batch_size : int, optional
        Patches per pass through the network.

    Returns
    -------
    pandas.DataFrame
        The input's own columns (``input_`` before the name of one that is also ours),
        ``pred_0 ... pred_4095`` (float32), then ``state``, ``reason``,
        ``message``, ``padded_fraction``, ``warnings`` and what the features were computed with;
        rows in input order. A row that cannot be used has empty features and says why.

    Raises
    ------
    SetupError
        If the table, the weights or the device cannot be used at all.
    """
    settings = Settings(
        weights=None if weights is None else Path(weights),
        profile=profile,
        device=device,
        precision=precision,
        batch_size=batch_size,
    )
    if isinstance(seeds, str | Path):
        table = read_seed_table(Path(seeds))
    else:
        columns = {str(name): _plain(column) for name, column in seeds.items()}
        table = seed_table(Path("DataFrame"), columns)
    result, _ = encode_table(table, settings)
    return result.to_arrow().to_pandas()


def encode_table(
    table: SeedTable, settings: Settings, report: Report = lambda event: None
) -> tuple[ResultTable, list[CaseState]]:
    """Compute the features of a seed table, image by image.

    Parameters
    ----------
    table : SeedTable
        Rows with an image each.
    settings : Settings
        What the user chose.
    report : callable
        Takes progress events.

    Returns
    -------
    ResultTable
        One row per row of the table, in its order.
    list of CaseState
        The state of every row.
    """
    table = require_images(table)
    n_rows = len(table.seeds)
    outcomes: list[LesionOutcome | None] = [None] * n_rows
    rows_of_case: list[list[int]] = []
    with ThreadPoolExecutor(1, thread_name_prefix="loader") as loader:
        load_encoder = start_loading(loader, settings, Timing())
        report({"event": "start", "n_cases": None, "n_lesions": n_rows})
        spec = PatchSpec(profile=settings.profile)
        cases = _cases(table, rows_of_case)
        for index, outcome in enumerate(run_cases(cases, load_encoder, spec)):
            for row, lesion in zip(rows_of_case[index], outcome.lesions, strict=True):
                outcomes[row] = lesion
            n_done = len(outcome.done)
            report({"event": "case", "n_lesions": len(outcome.lesions), "n_done": n_done})
        encoder = load_encoder()
    lesions = [lesion for lesion in outcomes if lesion is not None]
    assert len(lesions) == n_rows, "a row was lost"
    origin = provenance(encoder, configure(encoder, settings))
    return _tabulate(table, lesions, origin, encoder.n_features), [row.state for row in lesions]


def _cases(table: SeedTable, rows_of_case: list[list[int]]) -> Iterator[Case]:
    """Open one image after the other; note which rows each case stands for."""
    rows_by_image: dict[str, list[int]] = {}
    for row, image_path in enumerate(table.image_paths):
        rows_by_image.setdefault(image_path, []).append(row)
    for image_path, rows in rows_by_image.items():
        for case, rows_here in _cases_of_image(image_path, rows, table):
            rows_of_case.append(rows_here)
            yield case


def _cases_of_image(
    image_path: str, rows: Sequence[int], table: SeedTable
) -> Iterator[tuple[Case, list[int]]]:
    try:
        pool = find_volumes(*_look_at(_resolve(image_path, table.path.parent)))
    except Rejected as error:
        seeds = tuple(table.seeds[row] for row in rows)
        yield Case(image_path, seeds=seeds, error=error), list(rows)
        return
    taken: dict[str, list[int]] = {}
    for row in rows:
        seed, series_uid = table.seeds[row], table.series_uids[row]
        candidates = [
            draft
            for draft in pool.drafts.values()
            if not series_uid or draft.series_uid == series_uid
        ]
        try:
            position_mm = seed.position_mm if isinstance(seed, Seed) else (0.0, 0.0, 0.0)
            hint = f"name one of its {len(pool.drafts)} CT volumes in a column series_uid"
            draft = choose_draft(candidates, position_mm, hint)
            taken.setdefault(draft.case_id, []).append(row)
        except Rejected as error:
            yield Case(image_path, seeds=(reject(seed, error),)), [row]
    for case_id, rows_here in taken.items():
        draft = pool.drafts[case_id]
        draft.lesions += [table.seeds[row] for row in rows_here]
        yield draft.finish(), rows_here


def _look_at(path: Path) -> tuple:
    """Series and volume files at a path."""
    if is_volume_file(path):
        return (), (path,)
    return scan_dicom(path).series, ()


def _resolve(image_path: str, table_folder: Path) -> Path:
    for path in (Path(image_path), table_folder / image_path):
        if image_path and path.exists():
            return path
    raise UnreadableFileError(
        f"Image {image_path or '(empty)'} does not exist; correct image_path in the seed table."
    )


def _tabulate(
    table: SeedTable, lesions: Sequence[LesionOutcome], origin: Provenance, n_features: int
) -> ResultTable:
    features = np.full((len(lesions), n_features), np.nan, np.float32)
    for row, lesion in enumerate(lesions):
        if lesion.features is not None:
            features[row] = lesion.features
    trailing = [
        {
            "state": lesion.state.value,
            "reason": lesion.reason or None,
            "message": lesion.message or None,
            "padded_fraction": lesion.padded_fraction,
            "warnings": join_warnings(lesion) or None,
        }
        | origin.model_dump()
        for lesion in lesions
    ]
    result = ResultTable(
        columns=pa.table(table.columns),
        features=features,
        trailing=table_from_rows(trailing, _TRAILING | dict.fromkeys(Provenance.model_fields, str)),
    )
    taken = set(result.to_arrow().column_names[len(table.columns) :])
    own = [f"input_{name}" if name in taken else name for name in table.columns]
    return replace(result, columns=result.columns.rename_columns(own))


def _plain(column: "pandas.Series") -> list:
    """Python values of a column, None for whatever pandas calls missing."""
    return column.astype(object).where(column.notna(), None).tolist()
