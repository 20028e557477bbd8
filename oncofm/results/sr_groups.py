"""Measurement Groups (PS3.16 TID 1410 and 1411): one for each lesion, all of one shape.

Viewers make a table of the groups and take its columns from the first. So the groups have the
same items in the same order. A number that is not known of every lesion comes after those that
are, in the groups that have it: a NUM item without a value would stop many readers.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import highdicom as hd
import numpy as np
from highdicom.sr import ImageRegion3D, Measurement, QualitativeEvaluation
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from oncofm.results import sr_codes
from oncofm.results.sr_codes import derived_uid, is_uid, one_line, printable, private_code
from oncofm.results.sr_values import (
    ReportedLesion,
    ReportedNumber,
    ReportedPrediction,
    ReportProvenance,
)

Style = Literal["segment", "point"]
Group = (
    hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations
    | hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations
)

_SIGNIFICANT_DIGITS = 9
"""As many as a float32 has, and few enough for a Decimal String."""
_TITLE_BYTES = 40
"""What the title of a head may take of a Code Meaning."""


@dataclass(frozen=True)
class Column:
    """A kind of number in the groups.

    Attributes
    ----------
    name, unit : pydicom.sr.coding.Code
        Concept and UCUM unit.
    modifier : tuple of pydicom.sr.coding.Code or None
        Name and value of what tells it from others of the same concept.
    full_text : str
        Names that codes may have cut; empty if there are none.
    """

    name: Code
    unit: Code
    modifier: tuple[Code, Code] | None = None
    full_text: str = field(default="", compare=False)


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
    """Make the Measurement Groups of a report.

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
    numbers = [_numbers(lesion) for lesion in lesions]
    columns = _find_columns(numbers)
    notices = sorted({notice for lesion in lesions for notice in lesion.notices})
    full_texts = [column.full_text for column in columns if column.full_text]
    full_texts += [f"notice {private_code(notice, notice).value}: {notice}" for notice in notices]
    identifiers = _tracking_identifiers(lesions)
    uids = _tracking_uids(lesions, series_uid)
    groups: list[Group] = []
    for lesion, values, identifier, uid in zip(lesions, numbers, identifiers, uids, strict=True):
        shared = {
            "tracking_identifier": hd.sr.TrackingIdentifier(uid=uid, identifier=identifier),
            "finding_type": lesion.finding,
            "finding_sites": [hd.sr.FindingSite(lesion.finding_site)],
            "algorithm_id": _algorithm(lesion, provenance, full_texts),
            "measurements": [_measurement(key, values[key]) for key in columns if key in values],
            "qualitative_evaluations": _evaluations(lesion, notices),
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


# --- who the lesion is ---------------------------------------------------------------------


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
    return hd.sr.ReferencedSegment(
        sop_class_uid=segment.sop_class_uid,
        sop_instance_uid=segment.sop_instance_uid,
        segment_number=int(segment.segment_number),
        source_series=hd.sr.SourceSeriesForSegmentation(series_uid),
    )


# --- how it was done -----------------------------------------------------------------------


def _algorithm(
    lesion: ReportedLesion, provenance: ReportProvenance, full_texts: Sequence[str]
) -> hd.sr.AlgorithmIdentification:
    seed_mm = ", ".join(f"{value:.3f}" for value in lesion.position_mm)
    made_by = {
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


# --- what was found ------------------------------------------------------------------------


def _numbers(lesion: ReportedLesion) -> dict[Column, float]:
    """Collect the finite numbers of a lesion in the order of the report."""
    longest_mm = None if lesion.extent_mm is None else max(lesion.extent_mm)
    numbers = {
        _VOLUME: lesion.volume_mm3,
        _LONGEST_EDGE: longest_mm,
        _PADDED_FRACTION: lesion.padded_fraction,
        **{_probability(prediction): prediction.probability for prediction in lesion.predictions},
        **{_private_number(number): number.value for number in lesion.numbers},
    }
    return {
        column: value
        for column, value in numbers.items()
        if value is not None and math.isfinite(value)
    }


def _probability(prediction: ReportedPrediction) -> Column:
    # Classes of different heads differ, whatever they are called. The class comes last in the
    # meaning, so the title gives way.
    target = private_code(
        f"{prediction.head}.{prediction.class_name}",
        f"{one_line(prediction.title, _TITLE_BYTES)}: {prediction.class_name}",
    )
    return Column(
        sr_codes.PROBABILITY,
        sr_codes.NO_UNITS,
        (sr_codes.PREDICTION_TARGET, target),
        f"target {target.value}: head={prediction.head}, title={prediction.title}, "
        f"class={prediction.class_name}",
    )


def _private_number(number: ReportedNumber) -> Column:
    name = private_code(number.name, number.meaning)
    full_text = f"number {name.value}: {number.name}, {number.meaning}"
    return Column(name, number.unit, full_text=full_text)


def _find_columns(numbers: Sequence[Mapping[Column, float]]) -> list[Column]:
    """Order the kinds of numbers: those that all lesions have, then the others."""
    n_lesions = Counter(column for values in numbers for column in values)
    return sorted(n_lesions, key=lambda column: n_lesions[column] < len(numbers))


def _measurement(column: Column, value: float) -> Measurement:
    rounded = float(f"{value:.{_SIGNIFICANT_DIGITS}g}")
    measurement = Measurement(column.name, rounded, column.unit)
    if column.modifier is not None:
        name, modifier = column.modifier
        item = hd.sr.CodeContentItem(
            name=name,
            value=modifier,
            relationship_type=hd.sr.RelationshipTypeValues.HAS_CONCEPT_MOD,
        )
        measurement[0].ContentSequence = hd.sr.ContentSequence([item])
    return measurement


def _evaluations(lesion: ReportedLesion, notices: Iterable[str]) -> list[QualitativeEvaluation]:
    return [
        QualitativeEvaluation(sr_codes.INTENDED_USE, sr_codes.RESEARCH_ONLY),
        *(
            QualitativeEvaluation(
                private_code(notice, notice),
                sr_codes.PRESENT if notice in lesion.notices else sr_codes.ABSENT,
            )
            for notice in notices
        ),
    ]
