"""Everything that a run leaves in its output folder."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from oncofm.biomarkers.head import Head
from oncofm.encoders.encoder import Encoder, EncoderFacts
from oncofm.errors import OutputNotWritableError, SettingInvalidError
from oncofm.imaging.scan import SkippedFile
from oncofm.results.manifest import (
    Configuration,
    Reports,
    RunManifest,
    describe_weights,
    provenance,
    write_manifest,
)
from oncofm.results.table import ResultTable, table_from_rows, write_table
from oncofm.workflow.case import CaseOutcome
from oncofm.workflow.describe import configure, describe_run
from oncofm.workflow.gather import Worklist
from oncofm.workflow.settings import Settings
from oncofm.workflow.tabulate import tabulate_cases, tabulate_features, tabulate_predictions
from oncofm.workflow.timing import Timing

_TABLE_BYTES = 160_000
"""Upper bound of what one lesion adds to the tables: 4096 features as text, twice in an MHub
workflow, and as binary."""
_SR_BYTES = 200_000
"""Upper bound of what one lesion adds to the structured reports, all its features included."""
_KEY_IMAGE_BYTES = 7_000_000
"""Upper bound of one key image, which is uncompressed; without predictions it has half of that."""
_PAGE_BYTES = 200_000
"""Upper bound of what one lesion adds to the page: its picture and its rows."""
_BYTES_PER_RUN = 2_000_000

REPORTS, KEY_IMAGES, PAGE = "sr", "key_images", "report.html"
"""Below the output: folders of structured reports and of key images, and the report to read."""


def check_free_space(output: Path, worklist: Worklist, settings: Settings) -> None:
    """Make sure that the results will fit.

    Raises
    ------
    OutputNotWritableError
        If they might not.
    """
    n_lesions = sum(len(case.seeds) for case in worklist.cases)
    needed = _BYTES_PER_RUN + n_lesions * _bytes_per_lesion(settings)
    free = shutil.disk_usage(output).free
    if free < needed:
        raise OutputNotWritableError(
            f"Output folder {output} has {free / 1e6:.1f} MB free, and the results of "
            f"{n_lesions} lesions need up to {needed / 1e6:.1f} MB; free space first."
        )


def _bytes_per_lesion(settings: Settings) -> int:
    return (
        _TABLE_BYTES
        + (_SR_BYTES if settings.sr != "none" else 0)
        + (_KEY_IMAGE_BYTES if settings.key_images else 0)
        + (_PAGE_BYTES if settings.report else 0)
    )


def check_predecessors(output: Path, settings: Settings) -> None:
    """Make sure that the reports to revise are there, and will not be overwritten by new ones.

    Raises
    ------
    SettingInvalidError
        If they are not, or would be.
    """
    if settings.revises is None:
        return
    if settings.sr == "none":
        raise SettingInvalidError("Reports to revise were given but no reports are asked for.")
    if not settings.revises.exists():
        raise SettingInvalidError(
            f"{settings.revises} does not exist; name a structured report or a folder of them."
        )
    earlier, new = settings.revises.resolve(), (output / REPORTS).resolve()
    if earlier.is_relative_to(new) or new.is_relative_to(earlier):
        raise SettingInvalidError(
            f"{settings.revises} holds the reports to revise and would be overwritten; choose "
            "another output folder."
        )


def write_results(
    output: Path,
    worklist: Worklist,
    outcomes: Sequence[CaseOutcome],
    encoder: Encoder,
    settings: Settings,
    timing: Timing,
    heads: Sequence[Head] = (),
) -> RunManifest:
    """Write the tables, reports and the manifest of a run.

    Parameters
    ----------
    output : pathlib.Path
        Folder that exists and can be written.
    worklist, outcomes : Worklist, sequence of CaseOutcome
        What was to be done, and how it ended.
    encoder : Encoder
        What the features were computed with.
    settings : Settings
        What the user chose.
    timing : Timing
        Time per step; that of writing is added.
    heads : sequence of Head
        What is predicted from the features.

    Returns
    -------
    RunManifest
        As in ``run.json``, which is written last: where it is, everything is.

    Raises
    ------
    OutputNotWritableError
        If a file cannot be written.
    """
    configuration = configure(encoder, settings)
    with timing.part("write"):
        _write_tables(output, worklist, outcomes, encoder, configuration)
        _write_predictions(output, outcomes, encoder, configuration, heads)
    _remove_dicom(output)
    with timing.part("write_dicom"):
        reports = write_dicom(output, outcomes, encoder, configuration, settings)
    seconds = timing.seconds | {"total": timing.total()}
    manifest = describe_run(worklist, outcomes, encoder, configuration, seconds, reports, heads)
    with timing.part("write_page"):
        _write_page(output, outcomes, worklist, manifest, heads, settings)
    seconds = timing.seconds | {"total": timing.total()}  # the page could not know how long it took
    manifest = manifest.model_copy(update={"seconds": seconds})
    write_manifest(manifest, output / "run.json")
    return manifest


def _write_tables(
    output: Path,
    worklist: Worklist,
    outcomes: Sequence[CaseOutcome],
    encoder: Encoder,
    configuration: Configuration,
) -> None:
    origin = provenance(encoder, configuration)
    features = tabulate_features(outcomes, origin, encoder.n_features)
    write_table(features, output / "features.parquet")
    write_table(features, output / "features.csv")
    write_table(tabulate_cases(outcomes, worklist.verdicts, origin), output / "cases.csv")
    skipped = output / "skipped.csv"
    if worklist.skipped:
        write_table(tabulate_skipped(worklist.skipped), skipped)
    else:
        skipped.unlink(missing_ok=True)


def tabulate_skipped(files: Sequence[SkippedFile]) -> ResultTable:
    """One row per file that was looked at and is nothing that a reader takes."""
    rows = [{"file": file.name, "reason": file.reason} for file in files]
    return ResultTable(table_from_rows(rows, {"file": str, "reason": str}))


def _write_predictions(
    output: Path,
    outcomes: Sequence[CaseOutcome],
    encoder: Encoder,
    configuration: Configuration,
    heads: Sequence[Head],
) -> None:
    target = output / "predictions.csv"
    if heads:
        origin = provenance(encoder, configuration)
        write_table(tabulate_predictions(outcomes, origin), target)
    else:
        target.unlink(missing_ok=True)  # an older one would look like a result of this run


def _remove_dicom(output: Path) -> None:
    """Remove the reports and key images of an earlier run."""
    for folder in (REPORTS, KEY_IMAGES):
        for old in (output / folder).glob("*-*.dcm"):
            old.unlink()


def write_dicom(
    output: Path,
    outcomes: Sequence[CaseOutcome],
    encoder: Encoder | EncoderFacts,
    configuration: Configuration,
    settings: Settings,
) -> Reports | None:
    """Write the structured reports and key images that the settings ask for.

    Returns
    -------
    Reports or None
        What was written and what could not be; None where nothing was asked for.
    """
    # Only of random weights: the name of a file must not change what a report is called.
    caution = describe_weights(encoder) if encoder.weights.random_seed is not None else ""
    written: list[Reports] = []
    if settings.sr != "none":
        from oncofm.workflow.reports import write_reports

        written.append(
            write_reports(
                output / REPORTS,
                outcomes,
                configuration,
                settings.sr,
                features=settings.sr_features,
                predecessors=settings.revises,
                caution=caution,
            )
        )
    if settings.key_images:
        from oncofm.workflow.key_images import write_key_images

        folder = output / KEY_IMAGES
        written.append(write_key_images(folder, outcomes, configuration, caution=caution))
    if not written:
        return None
    return Reports(
        sop_instance_uids=[uid for one in written for uid in one.sop_instance_uids],
        key_image_uids=[uid for one in written for uid in one.key_image_uids],
        failures=[failure for one in written for failure in one.failures],
    )


def _write_page(
    output: Path,
    outcomes: Sequence[CaseOutcome],
    worklist: Worklist,
    manifest: RunManifest,
    heads: Sequence[Head],
    settings: Settings,
) -> None:
    page = output / PAGE
    if settings.report:
        from oncofm.workflow.page import write_page

        write_page(page, outcomes, worklist.verdicts, manifest, heads)
    else:
        page.unlink(missing_ok=True)  # an older one would look like a result of this run
