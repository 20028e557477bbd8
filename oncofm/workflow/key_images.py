"""Outcomes as DICOM key images: a picture of every lesion that is done."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from oncofm.biomarkers.card import CLASS_KINDS
from oncofm.biomarkers.predictions import Prediction
from oncofm.errors import Rejected
from oncofm.imaging.dicom_series import DicomSeries
from oncofm.results.key_image import write_key_image
from oncofm.results.manifest import Configuration, Reports
from oncofm.seeds.seed import Seed
from oncofm.workflow.case import CaseOutcome, LesionOutcome
from oncofm.workflow.reports import report_provenance, source_headers


def write_key_images(
    folder: Path,
    outcomes: Sequence[CaseOutcome],
    configuration: Configuration,
    *,
    caution: str = "",
) -> Reports:
    """Write the key images of a run.

    Parameters
    ----------
    folder : pathlib.Path
        Made if there is an image; each is called ``<case id>-<number>.dcm``.
    outcomes : sequence of CaseOutcome
        What ran. Cases that are no DICOM series have no key images.
    configuration : Configuration
        What the features were computed with.
    caution : str
        What makes the results meaningless, if anything does; the first line of each picture.

    Returns
    -------
    Reports
        What was written, and a sentence for every image that could not be.

    Raises
    ------
    OutputNotWritableError
        If a file cannot be written.
    """
    provenance = report_provenance(configuration, caution)
    uids, failures = [], []
    for outcome in outcomes:
        volume = outcome.case.volume
        if not outcome.done or not isinstance(volume, DicomSeries):
            continue
        folder.mkdir(parents=True, exist_ok=True)
        try:
            headers = source_headers(volume)
        except Rejected as error:
            failures.append(f"Case {outcome.case.case_id} has no key images: {error}")
            continue
        for number, lesion in enumerate(outcome.done, start=1):
            assert isinstance(lesion.seed, Seed)
            path = folder / f"{outcome.case.case_id}-{number}.dcm"
            try:
                uid = write_key_image(
                    path,
                    headers,
                    volume,
                    lesion.seed,
                    lines=[*([caution] if caution else []), *_lines(lesion)],
                    provenance=provenance,
                    number=number,
                )
                uids.append(uid)
            except Rejected as error:
                failures.append(f"Lesion {lesion.seed.lesion_id} has no key image: {error}")
        volume.release()
    return Reports(sop_instance_uids=[], key_image_uids=sorted(uids), failures=failures)


def _lines(lesion: LesionOutcome) -> Iterator[str]:
    for prediction in lesion.predictions:
        yield f"{prediction.card.title} ({prediction.card.name}): {_values(prediction)}"
    for notice in lesion.notices:
        yield f"{notice.code}: {notice.message}"


def _values(prediction: Prediction) -> str:
    card = prediction.card
    if card.kind in CLASS_KINDS:
        pairs = zip(card.classes, prediction.values, strict=True)
        text = ", ".join(f"{name} {value:.1%}" for name, value in pairs)
    else:
        text = f"{card.quantity} {prediction.values[0]:.3g}"
        text += f" {card.unit}" if card.unit != "1" else ""
    return text + (f", {prediction.risk_group} risk" if prediction.risk_group else "")
