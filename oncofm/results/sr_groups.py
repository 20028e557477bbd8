"""Measurement Groups (PS3.16 TID 1410 and 1411): one for each lesion, all of one shape.

Viewers make a table of the groups and take its columns from the first. So the groups have the
same items in the same order. What is not known of every lesion comes after what is, in the groups
that have it: a NUM item without a value would stop many readers.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

import highdicom as hd
import numpy as np
from highdicom.sr import ImageRegion3D, QualitativeEvaluation
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from oncofm.results import sr_codes
from oncofm.results.sr_codes import derived_uid, is_uid, printable, private_code
from oncofm.results.sr_numbers import Column
from oncofm.results.sr_values import ReportedLesion, ReportProvenance, Target

Style = Literal["segment", "point"]
Key = TypeVar("Key")
Group = (
    hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations
    | hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations
)

_VOLUME = Column(sr_codes.VOLUME, sr_codes.MM3)
_LONGEST_EDGE = Column(
    sr_codes.LENGTH, sr_codes.MM, (sr_codes.MEASUREMENT_METHOD, sr_codes.LONGEST_BOX_EDGE)
)
_PADDED_FRACTION = Column(sr_codes.PADDED_FRACTION, sr_codes.NO_UNITS)


def make_groups(
    lesions: Sequence[ReportedLesion],
    provenance: ReportProvenance,
    *,
    style: Style,
    series_uid: str,
    frame_of_reference_uid: str,
) -> list[Group]:
    """Make the Measurement Groups of a report, but for their numbers.

    Parameters
    ----------
    lesions : sequence of ReportedLesion
        In the order of the report.
    provenance : ReportProvenance
        What made the results.
    style : {"segment", "point"}
        Volumetric groups (TID 1411) with the segment, or planar ones (TID 1410) with the seed.
    series_uid, frame_of_reference_uid : str
        Of the source series.

    Returns
    -------
    list
        highdicom's templates, one for each lesion.

    Raises
    ------
    ValueError
        If a lesion has no segment, for groups of segments.
    """
    notices = sorted({notice for lesion in lesions for notice in lesion.notices})
    full_texts = _full_texts(lesions, notices)
    lesions = identify_lesions(lesions, series_uid)
    answers = [_answers(lesion, notices) for lesion in lesions]
    questions = _find_columns(answers)
    groups: list[Group] = []
    for lesion, codes_of in zip(lesions, answers, strict=True):
        shared = {
            "tracking_identifier": hd.sr.TrackingIdentifier(
                uid=lesion.tracking_uid, identifier=lesion.label
            ),
            "finding_type": lesion.finding,
            "finding_sites": [hd.sr.FindingSite(lesion.finding_site)],
            "algorithm_id": _algorithm(lesion, provenance, full_texts),
            "qualitative_evaluations": [
                QualitativeEvaluation(question, codes_of[question])
                for question in questions
                if question in codes_of
            ],
        }
        if style == "segment":
            segment = _referenced_segment(lesion, series_uid)
            groups.append(
                hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                    referenced_segment=segment, **shared
                )
            )
        else:
            region = ImageRegion3D(
                graphic_type="POINT",
                graphic_data=np.array([lesion.position_mm], dtype=np.float64),
                frame_of_reference_uid=frame_of_reference_uid,
            )
            groups.append(
                hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
                    referenced_region=region, **shared
                )
            )
    return groups


def collect_numbers(lesions: Sequence[ReportedLesion]) -> list[dict[Column, float]]:
    """Collect the numbers of the groups, in their order."""
    numbers = [_numbers(lesion) for lesion in lesions]
    columns = _find_columns(numbers)
    return [{key: values[key] for key in columns if key in values} for values in numbers]


# --- who the lesion is ---------------------------------------------------------------------


def identify_lesions(lesions: Sequence[ReportedLesion], series_uid: str) -> list[ReportedLesion]:
    """Give lesions of a series labels and Tracking Unique Identifiers of their own."""
    labels, uids = _tracking_identifiers(lesions), _tracking_uids(lesions, series_uid)
    return [
        replace(lesion, label=label, tracking_uid=uid)
        for lesion, label, uid in zip(lesions, labels, uids, strict=True)
    ]


def _tracking_identifiers(lesions: Sequence[ReportedLesion]) -> list[str]:
    """Call lesions by their labels; those without, or with that of another, by their id too."""
    labels = [printable(lesion.label) for lesion in lesions]
    n_lesions = Counter(labels)
    identifiers = []
    for lesion, label in zip(lesions, labels, strict=True):
        lesion_id = printable(lesion.lesion_id)
        if not label:
            identifiers.append(lesion_id)
        elif n_lesions[label] > 1:
            identifiers.append(f"{label} ({lesion_id})")
        else:
            identifiers.append(label)
    return identifiers


def _tracking_uids(lesions: Sequence[ReportedLesion], series_uid: str) -> list[str]:
    n_lesions = Counter(lesion.tracking_uid for lesion in lesions)
    return [
        lesion.tracking_uid
        if n_lesions[lesion.tracking_uid] == 1 and is_uid(lesion.tracking_uid)
        else derived_uid("tracking", series_uid, lesion.tracking_uid, lesion.lesion_id)
        for lesion in lesions
    ]


def _referenced_segment(lesion: ReportedLesion, series_uid: str) -> hd.sr.ReferencedSegment:
    segment = lesion.segment
    if segment is None:
        raise ValueError(f"a report of segments needs the segment of {lesion.lesion_id}")
    source_series = hd.sr.SourceSeriesForSegmentation(series_uid)
    # highdicom writes it in another case than the standard.
    source_series.ConceptNameCodeSequence[0].CodeMeaning = "Source series for segmentation"
    return hd.sr.ReferencedSegment(
        sop_class_uid=segment.sop_class_uid,
        sop_instance_uid=segment.sop_instance_uid,
        segment_number=int(segment.segment_number),
        source_series=source_series,
    )


# --- how it was done -----------------------------------------------------------------------


def _algorithm(
    lesion: ReportedLesion, provenance: ReportProvenance, full_texts: Sequence[str]
) -> hd.sr.AlgorithmIdentification:
    seed_mm = ", ".join(f"{value:.3f}" for value in lesion.position_mm)
    made_by = {"caution": provenance.caution} if provenance.caution else {}
    made_by |= {
        "model": provenance.model,
        "weights_sha256": provenance.weights_sha256,
        "profile": provenance.profile,
        "configuration_hash": provenance.configuration_hash,
        "features_sha256": lesion.features_sha256 or "none",
        "seed_lps_mm": seed_mm,
        "lesion_id": lesion.lesion_id,
    }
    # In one item, because some readers keep the first only.
    parameters = ["; ".join(f"{name}={value}" for name, value in made_by.items()), *full_texts]
    return hd.sr.AlgorithmIdentification(
        name=printable(provenance.software),
        version=printable(provenance.version),
        parameters=[printable(parameter) for parameter in parameters],
        family=codes.DCM.ArtificialIntelligence,
    )


def _full_texts(lesions: Sequence[ReportedLesion], notices: Iterable[str]) -> list[str]:
    """Spell out the names that codes may have cut."""
    targets: dict[Target, None] = {}
    for lesion in lesions:
        targets |= dict.fromkeys(number.target for number in lesion.numbers)
        targets |= dict.fromkeys(group.target for group in lesion.risk_groups)
    return [
        *(f"target {target.code.value}: {target.full_text}" for target in targets),
        *(f"notice {private_code(notice, notice).value}: {notice}" for notice in notices),
    ]


# --- what was found ------------------------------------------------------------------------


def _numbers(lesion: ReportedLesion) -> dict[Column, float]:
    """Collect the finite numbers of a lesion in the order of the report."""
    longest_mm = None if lesion.extent_mm is None else max(lesion.extent_mm)
    numbers = {
        _VOLUME: lesion.volume_mm3,
        _LONGEST_EDGE: longest_mm,
        _PADDED_FRACTION: lesion.padded_fraction,
    }
    for number in lesion.numbers:
        modifier = sr_codes.PREDICTION_TARGET, number.target.code
        numbers[Column(number.name, number.unit, modifier)] = number.value
    return {
        column: value
        for column, value in numbers.items()
        if value is not None and math.isfinite(value)
    }


def _answers(lesion: ReportedLesion, notices: Iterable[str]) -> dict[Code, Code]:
    """Collect the coded answers about a lesion in the order of the report."""
    return {
        sr_codes.INTENDED_USE: sr_codes.RESEARCH_ONLY,
        **{
            group.target.qualified("risk-group", "risk group"): (
                sr_codes.HIGH_RISK if group.is_high else sr_codes.LOW_RISK
            )
            for group in lesion.risk_groups
        },
        **{
            private_code(notice, notice): (
                sr_codes.PRESENT if notice in lesion.notices else sr_codes.ABSENT
            )
            for notice in notices
        },
    }


def _find_columns(rows: Sequence[Mapping[Key, object]]) -> list[Key]:
    """Order what is known of lesions: first what is known of all, then the rest."""
    n_lesions = Counter(key for row in rows for key in row)
    return sorted(n_lesions, key=lambda key: n_lesions[key] < len(rows))
