"""Outcomes as the HTML report of a run: ``report.html``."""

import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from oncofm.biomarkers.head import Head
from oncofm.errors import Rejected
from oncofm.results.files import write_text
from oncofm.results.manifest import RunManifest
from oncofm.results.report import (
    Download,
    LeftOut,
    Page,
    Preview,
    ReportedCase,
    ReportedLesion,
    draw_preview,
    render_report,
)
from oncofm.results.report.limits import MOST_LESIONS, MOST_PREVIEW_BYTES, MOST_PREVIEWS
from oncofm.seeds.seed import Seed
from oncofm.workflow.case import Case, CaseOutcome, CaseState, InputVerdict, LesionOutcome

log = logging.getLogger(__name__)

_FILES = {
    "features.parquet": "features and what is known about each lesion, a row per lesion done",
    "features.csv": "the same as text",
    "predictions.csv": "what the heads say, a row per lesion, head and class",
    "cases.csv": "every case, lesion and input that was left out, with reasons",
    "skipped.csv": "files that no reader takes",
}
_MANIFEST = "run.json"
"""Written when everything else is, so it need not be there yet."""
_DICOM = {"sr": "DICOM structured report", "key_images": "DICOM key image"}


def write_page(
    path: Path,
    outcomes: Sequence[CaseOutcome],
    verdicts: Sequence[InputVerdict],
    manifest: RunManifest,
    heads: Sequence[Head],
) -> None:
    """Write the report of a run, beside the other files of the run.

    Parameters
    ----------
    path : pathlib.Path
        ``report.html``; a file that is there is replaced. Links lead to the files of the run
        that lie in the same folder.
    outcomes : sequence of CaseOutcome
        What ran. Voxels are read again for the pictures, of at most `MOST_PREVIEWS` lesions.
    verdicts : sequence of InputVerdict
        What was seen and is no case.
    manifest : RunManifest
        As in ``run.json``. The same arguments and files give the same bytes.
    heads : sequence of Head
        That were asked.

    Raises
    ------
    OutputNotWritableError
        If the page cannot be written.
    """
    page = Page(
        manifest,
        tuple(head.card for head in heads),
        tuple(islice(_lesions(outcomes), MOST_LESIONS)),
        (*_cases_left_out(outcomes), *_inputs_left_out(verdicts), *_outputs_left_out(manifest)),
        tuple(_downloads(path.parent)),
    )
    write_text(path, render_report(page))


def _lesions(outcomes: Sequence[CaseOutcome]) -> Iterator[ReportedLesion]:
    album = _Album()
    for outcome in outcomes:
        case = outcome.case
        reported = ReportedCase(case.case_id, case.study_uid, case.series_uid, case.modality)
        try:
            for lesion in outcome.lesions:
                yield _lesion(reported, lesion, *album.picture(case, lesion))
        finally:
            if case.volume is not None:
                case.volume.release()


def _lesion(
    case: ReportedCase, lesion: LesionOutcome, preview: Preview | None, no_preview: str
) -> ReportedLesion:
    return ReportedLesion(
        case,
        lesion.seed,
        lesion.state.value,
        lesion.reason,
        lesion.message,
        lesion.notices,
        lesion.padded_fraction,
        lesion.predictions,
        preview,
        no_preview,
    )


class _Album:
    """Pictures, as long as there is room for them in the page."""

    def __init__(self) -> None:
        self._n_pictures = 0
        self._n_bytes = 0

    def picture(self, case: Case, lesion: LesionOutcome) -> tuple[Preview | None, str]:
        """Draw a lesion, or say why there is no picture.

        A rejected lesion has none, and its reason says why.
        """
        seed = lesion.seed
        if lesion.state is CaseState.REJECTED or not isinstance(seed, Seed) or case.volume is None:
            return None, ""
        if self._n_pictures >= MOST_PREVIEWS or self._n_bytes >= MOST_PREVIEW_BYTES:
            return None, (
                f"There is no picture of {seed.lesion_id}: this page holds those of the first "
                f"{self._n_pictures} lesions. `oncofm seeds INPUT -o seeds.csv --overlay FOLDER` "
                "draws all of them."
            )
        try:
            preview = draw_preview(case.volume, seed)
        except Rejected as error:
            return None, f"There is no picture of {seed.lesion_id}: {error}"
        except Exception as error:
            # The text of a foreign exception may quote a data set, so only its type is repeated.
            log.debug("drawing failed", exc_info=True)
            return None, (
                f"There is no picture of {seed.lesion_id}: drawing it failed "
                f"({type(error).__name__}); run again with --debug to see where."
            )
        self._n_pictures += 1
        self._n_bytes += preview.n_bytes
        return preview, ""


def _cases_left_out(outcomes: Sequence[CaseOutcome]) -> Iterator[LeftOut]:
    for outcome in outcomes:
        if outcome.state is not CaseState.DONE:
            yield LeftOut(
                "case",
                outcome.case.case_id,
                outcome.state.value,
                outcome.reason,
                outcome.message,
                outcome.case.modality,
            )


def _inputs_left_out(verdicts: Sequence[InputVerdict]) -> Iterator[LeftOut]:
    for verdict in verdicts:
        error = verdict.error
        yield LeftOut(
            verdict.level, verdict.name, "rejected", error.code, str(error), verdict.modality
        )


def _outputs_left_out(manifest: RunManifest) -> Iterator[LeftOut]:
    for failure in manifest.reports.failures if manifest.reports else ():
        yield LeftOut("output", "", "failed", "", failure)


def list_tables(folder: Path) -> list[Download]:
    """List the tables in a folder."""
    return [Download(name, what) for name, what in _FILES.items() if (folder / name).exists()]


def _downloads(folder: Path) -> Iterator[Download]:
    yield from list_tables(folder)
    yield Download(_MANIFEST, "what ran, on what, with what, and how it ended")
    for below, what in _DICOM.items():
        for path in sorted((folder / below).glob("*-*.dcm")):
            yield Download(f"{below}/{path.name}", what)
