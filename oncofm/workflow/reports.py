"""Outcomes as DICOM structured reports: one for every CT series that has a lesion done."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import pydicom
from pydicom.dataset import Dataset

import oncofm
from oncofm.biomarkers.card import CLASS_KINDS
from oncofm.biomarkers.predictions import Prediction
from oncofm.errors import Rejected, UnreadableFileError
from oncofm.imaging.dicom_series import DicomSeries
from oncofm.imaging.scan import InstanceRecord
from oncofm.results import sr_codes
from oncofm.results.files import prepare_output_folder
from oncofm.results.manifest import Configuration, Reports
from oncofm.results.sr import of_style, write_sr
from oncofm.results.sr_features import features_digest, write_features_sr
from oncofm.results.sr_groups import Style, identify_lesions
from oncofm.results.sr_header import uid_text
from oncofm.results.sr_series import EarlierReport, read_earlier_reports
from oncofm.results.sr_values import (
    ReportedLesion,
    ReportedNumber,
    ReportedRiskGroup,
    ReportProvenance,
    SegmentReference,
    Target,
)
from oncofm.seeds.seed import Seed
from oncofm.workflow.case import CaseOutcome, LesionOutcome
from oncofm.workflow.settings import ReportStyle

_SOFTWARE = "oncofm"


def write_reports(
    folder: Path,
    outcomes: Sequence[CaseOutcome],
    configuration: Configuration,
    style: ReportStyle,
    *,
    features: Literal["none", "full"] = "none",
    predecessors: Path | None = None,
    caution: str = "",
) -> Reports:
    """Write the structured reports of a run.

    Parameters
    ----------
    folder : pathlib.Path
        Made if there is a report; each is called ``<case id>-<style>.dcm``.
    outcomes : sequence of CaseOutcome
        What ran. Cases that are no DICOM series, or have no lesion done, have no report.
    configuration : Configuration
        What the features were computed with.
    style : str
        ``segment`` and ``point`` as for `oncofm.results.sr.write_sr`, ``both``, or ``auto``:
        segments where every lesion is a whole segment of one SEG, else points.
    features : str
        ``full``: for the n-th lesion that is done also ``<case id>-features-<n>.dcm``, with all
        its features; it refers to a segment where the lesion is one, unless points are asked for.
    predecessors : pathlib.Path or None
        A report of an earlier run, or a folder of them. Of each series and model the new report
        names the newest as its predecessor, unless it says the same; of both styles each keeps to
        its own.
    caution : str
        What makes the results meaningless, if anything does; the reports repeat it.

    Returns
    -------
    Reports
        What was written, and a sentence for every report that could not be, and for every earlier
        one that cannot be used.

    Raises
    ------
    OutputNotWritableError
        If a file cannot be written.
    """
    earlier, failures = [], []
    if predecessors is not None:
        earlier, failures = read_earlier_reports(predecessors, _SOFTWARE)
    provenance, uids = report_provenance(configuration, caution), []
    for outcome in outcomes:
        volume = outcome.case.volume
        if not outcome.done or not isinstance(volume, DicomSeries):
            continue
        case_id, lesions = outcome.case.case_id, _lesions(outcome)
        try:
            prepare_output_folder(folder)
            headers = _evidence_headers(volume)
        except Rejected as error:
            failures.append(f"Case {case_id} has no report: {error}")
            continue
        styles = _styles(style, lesions)
        for one in styles:
            path = folder / f"{case_id}-{one}.dcm"
            # A run of both styles revises each by its own.
            known = earlier if len(styles) == 1 else of_style(earlier, one)
            try:
                uids.append(write_sr(path, headers, lesions, provenance, style=one, earlier=known))
            except Rejected as error:
                failures.append(f"Case {case_id} has no report: {error}")
        if features == "full":
            written, missing = _write_features(
                folder, outcome, headers, lesions, provenance, style, earlier
            )
            uids += written
            failures += missing
    return Reports(sop_instance_uids=sorted(uids), failures=failures)


def _styles(style: ReportStyle, lesions: Sequence[ReportedLesion]) -> list[Style]:
    segments = {
        (lesion.segment.sop_instance_uid, lesion.segment.segment_number)
        for lesion in lesions
        if lesion.segment is not None
    }
    # Viewers match groups with segments by their order, and know one SEG in each report.
    has_segments = len(segments) == len(lesions) and len({uid for uid, _ in segments}) == 1
    if style == "both":
        return ["segment", "point"] if has_segments else ["point"]
    return ["segment"] if has_segments and style != "point" else ["point"]


def _lesions(outcome: CaseOutcome) -> list[ReportedLesion]:
    """Describe the lesions that are done; of two with one id each names its object too."""
    counts = Counter(lesion.seed.lesion_id for lesion in outcome.done)
    return [_lesion(lesion, counts[lesion.seed.lesion_id] > 1) for lesion in outcome.done]


def _lesion(lesion: LesionOutcome, ambiguous: bool) -> ReportedLesion:
    seed = lesion.seed
    assert isinstance(seed, Seed)
    assert lesion.features is not None
    source = seed.source
    origin = source.sop_instance_uid or source.file_name
    return ReportedLesion(
        lesion_id=f"{seed.lesion_id} of {origin}" if ambiguous else seed.lesion_id,
        label=source.segment_label,
        tracking_uid="" if source.component else source.tracking_uid,
        position_mm=seed.position_mm,
        extent_mm=seed.extent_mm,
        volume_mm3=seed.volume_mm3,
        segment=_segment(seed),
        padded_fraction=lesion.padded_fraction,
        notices=tuple(dict.fromkeys(notice.code for notice in lesion.notices)),
        features_sha256=features_digest(lesion.features),
        numbers=tuple(
            number for prediction in lesion.predictions for number in _numbers(prediction)
        ),
        risk_groups=tuple(
            ReportedRiskGroup(_target(prediction), prediction.risk_group == "high")
            for prediction in lesion.predictions
            if prediction.risk_group is not None
        ),
    )


def _segment(seed: Seed) -> SegmentReference | None:
    source = seed.source
    if source.kind != "seg" or source.segment_number is None or source.component is not None:
        return None
    return SegmentReference(
        sop_class_uid=source.sop_class_uid,
        sop_instance_uid=source.sop_instance_uid,
        series_uid=source.series_uid,
        segment_number=source.segment_number,
    )


def _numbers(prediction: Prediction) -> Iterator[ReportedNumber]:
    """Tell what a head says, and by what it says so."""
    card, stability = prediction.card, prediction.stability
    is_class, unit = card.kind in CLASS_KINDS, sr_codes.ucum(card.unit)
    outputs = [_target(prediction, output) for output in card.outputs]
    for output, value in zip(outputs, prediction.values, strict=True):
        name = sr_codes.PROBABILITY if is_class else output.code
        yield ReportedNumber(name, output, value, unit)
    if card.threshold is not None:  # it is about the last output, as in `Head.risk_groups`
        yield ReportedNumber(sr_codes.DECISION_THRESHOLD, outputs[-1], card.threshold.value, unit)
    if stability is not None:
        yield ReportedNumber(sr_codes.N_SHIFTS, _target(prediction), stability.n_shifts)
        for output, mean, sd in zip(outputs, stability.mean, stability.sd, strict=True):
            yield ReportedNumber(sr_codes.SHIFTED_MEAN, output, mean, unit)
            yield ReportedNumber(sr_codes.SHIFTED_SD, output, sd, unit)
    if prediction.training_percentile is not None:
        yield ReportedNumber(
            sr_codes.TRAINING_PERCENTILE,
            _target(prediction),
            prediction.training_percentile,
            sr_codes.PERCENT,
        )


def _target(prediction: Prediction, output: str = "") -> Target:
    return Target(prediction.card.name, prediction.card.title, output)


def _write_features(
    folder: Path,
    outcome: CaseOutcome,
    headers: Sequence[Dataset],
    lesions: Sequence[ReportedLesion],
    provenance: ReportProvenance,
    style: ReportStyle,
    earlier: Sequence[EarlierReport],
) -> tuple[list[str], list[str]]:
    """Write a report of features for each lesion; return UIDs, and why others were not."""
    case_id, uids, failures = outcome.case.case_id, [], []
    lesions = identify_lesions(lesions, uid_text(headers[0], "SeriesInstanceUID"))
    for number, (lesion, done) in enumerate(zip(lesions, outcome.done, strict=True), start=1):
        assert done.features is not None
        try:
            uid = write_features_sr(
                folder / f"{case_id}-features-{number}.dcm",
                headers,
                lesion,
                done.features,
                provenance,
                style=_styles(style, [lesion])[0],
                number=number,
                earlier=earlier,
            )
            uids.append(uid)
        except Rejected as error:
            failures.append(f"Lesion {number} of case {case_id} has no features report: {error}")
    return uids, failures


def source_headers(volume: DicomSeries) -> list[Dataset]:
    """Read the whole headers of a series, each instance once.

    Raises
    ------
    UnreadableFileError
        If a file cannot be read any more.
    """
    return [_read_header(instance) for instance in _instances(volume)]


def _evidence_headers(volume: DicomSeries) -> list[Dataset]:
    """Get the UIDs of a series; what its images share is read from the first of them alone.

    Reading 300 whole headers takes half a second.
    """
    first, *others = sorted(_instances(volume), key=lambda instance: instance.sop_instance_uid)
    return [_read_header(first), *map(_uids, others)]


def _instances(volume: DicomSeries) -> list[InstanceRecord]:
    return list(
        {frame.instance.sop_instance_uid: frame.instance for frame in volume.frames}.values()
    )


def _read_header(instance: InstanceRecord) -> Dataset:
    try:
        with instance.source.open() as file:
            return pydicom.dcmread(file, stop_before_pixels=True)
    except Exception as error:  # gone by now; garbled bytes make pydicom raise anything
        raise UnreadableFileError(
            f"{instance.source.name} cannot be read again ({type(error).__name__}); put it back, "
            "then run again."
        ) from error


def _uids(instance: InstanceRecord) -> Dataset:
    header = Dataset()
    header.SOPInstanceUID = instance.sop_instance_uid
    header.SOPClassUID = instance.sop_class_uid
    header.SeriesInstanceUID = instance.series_uid
    header.StudyInstanceUID = instance.study_uid
    return header


def report_provenance(configuration: Configuration, caution: str) -> ReportProvenance:
    """Say what made the results of a run, for what leaves as DICOM."""
    return ReportProvenance(
        software=_SOFTWARE,
        version=oncofm.__version__,
        model=configuration.model,
        weights_sha256=configuration.weights_sha256,
        profile=configuration.profile,
        configuration_hash=configuration.digest(),
        caution=caution,
    )
