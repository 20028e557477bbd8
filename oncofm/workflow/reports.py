"""Outcomes as DICOM structured reports: one for every CT series that has a lesion done."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pydicom
from pydicom.dataset import Dataset

import oncofm
from oncofm.biomarkers.card import CLASS_KINDS
from oncofm.biomarkers.head import Head
from oncofm.errors import Rejected
from oncofm.imaging.dicom_series import DicomSeries
from oncofm.results.manifest import Configuration, Reports
from oncofm.results.sr import write_sr
from oncofm.results.sr_values import (
    ReportedLesion,
    ReportedNumber,
    ReportedPrediction,
    ReportProvenance,
    SegmentReference,
)
from oncofm.seeds.seed import Seed
from oncofm.workflow.case import CaseOutcome, LesionOutcome
from oncofm.workflow.settings import ReportStyle


def write_reports(
    folder: Path,
    outcomes: Sequence[CaseOutcome],
    configuration: Configuration,
    heads: Sequence[Head],
    style: ReportStyle,
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
    heads : sequence of Head
        What is predicted from them.
    style : str
        ``segment`` and ``point`` as for `oncofm.results.sr.write_sr`, ``both``, or ``auto``:
        segments where every lesion is a whole segment of one SEG, else points.

    Returns
    -------
    Reports
        What was written, and a sentence for every report that could not be.

    Raises
    ------
    OutputNotWritableError
        If a file cannot be written.
    """
    uids, failures = [], []
    for outcome in outcomes:
        volume = outcome.case.volume
        if not outcome.done or not isinstance(volume, DicomSeries):
            continue
        lesions = _lesions(outcome, heads)
        for one in _styles(style, lesions):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                path = folder / f"{outcome.case.case_id}-{one}.dcm"
                headers = _headers(volume)
                uid = write_sr(path, headers, lesions, _provenance(configuration), style=one)
                uids.append(uid)
            except Rejected as error:
                failures.append(f"Case {outcome.case.case_id} has no report: {error}")
    return Reports(sop_instance_uids=sorted(uids), failures=failures)


def _styles(
    style: ReportStyle, lesions: Sequence[ReportedLesion]
) -> list[Literal["segment", "point"]]:
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


def _lesions(outcome: CaseOutcome, heads: Sequence[Head]) -> list[ReportedLesion]:
    """Describe the lesions that are done; of two with one id each names its object too."""
    counts = Counter(lesion.seed.lesion_id for lesion in outcome.done)
    return [_lesion(lesion, heads, counts[lesion.seed.lesion_id] > 1) for lesion in outcome.done]


def _lesion(lesion: LesionOutcome, heads: Sequence[Head], ambiguous: bool) -> ReportedLesion:
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
        features_sha256=hashlib.sha256(lesion.features.astype("<f4").tobytes()).hexdigest(),
        predictions=_predictions(heads, lesion.features),
        numbers=_numbers(heads, lesion.features),
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


def _predictions(heads: Sequence[Head], features: np.ndarray) -> tuple[ReportedPrediction, ...]:
    return tuple(
        ReportedPrediction(head.card.name, head.card.title, name, float(chance))
        for head in heads
        if head.card.kind in CLASS_KINDS
        for name, chance in zip(head.card.classes, head.predict(features[None])[0], strict=True)
    )


def _numbers(heads: Sequence[Head], features: np.ndarray) -> tuple[ReportedNumber, ...]:
    return tuple(
        ReportedNumber(head.card.name, head.card.title, float(head.predict(features[None]).item()))
        for head in heads
        if head.card.kind not in CLASS_KINDS
    )


def _headers(volume: DicomSeries) -> list[Dataset]:
    headers = {}
    for frame in volume.frames:
        uid = frame.instance.sop_instance_uid
        if uid not in headers:
            with frame.instance.source.open() as file:
                headers[uid] = pydicom.dcmread(file, stop_before_pixels=True)
    return list(headers.values())


def _provenance(configuration: Configuration) -> ReportProvenance:
    return ReportProvenance(
        software="oncofm",
        version=oncofm.__version__,
        model=configuration.model,
        weights_sha256=configuration.weights_sha256,
        profile=configuration.profile,
        configuration_hash=configuration.digest(),
    )
