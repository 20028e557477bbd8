"""What tests of structured reports share: lesions of the phantom, and ways into a document."""

from dataclasses import replace

from pydicom.dataset import Dataset
from studies import Study

from oncofm.results.sr_codes import (
    DECISION_THRESHOLD,
    N_SHIFTS,
    PERCENT,
    PROBABILITY,
    SHIFTED_MEAN,
    SHIFTED_SD,
    TRAINING_PERCENTILE,
)
from oncofm.results.sr_values import (
    ReportedLesion,
    ReportedNumber,
    ReportedRiskGroup,
    ReportProvenance,
    SegmentReference,
    Target,
)

UMLAUTS = "Lunge rechts, Öberlappen größer als früher; \\ zweite Läsion, 70 Zeichen"
PROVENANCE = ReportProvenance(
    software="oncofm",
    version="0.1.0",
    model="fmcib",
    weights_sha256="cd" * 32,
    profile="fmcib-50mm",
    configuration_hash="ef" * 32,
)
SURVIVAL = Target("survival", "2-year survival")
DECEASED, ALIVE = replace(SURVIVAL, output="deceased"), replace(SURVIVAL, output="alive")


def chance(head: str, title: str, output: str, value: float) -> ReportedNumber:
    return ReportedNumber(PROBABILITY, Target(head, title, output), value)


def describe_lesions(study: Study, seg: Dataset) -> list[ReportedLesion]:
    """The three lesions of the phantom, as the seeds of its SEG, and what a head says of them."""
    return [
        ReportedLesion(
            lesion_id=f"segment-{number}",
            label=lesion.label,
            tracking_uid=f"2.25.77{number}",
            position_mm=lesion.centre_mm,
            extent_mm=(10.0 * number, 20.0, 12.5),
            volume_mm3=1234.5 * number,
            segment=SegmentReference(
                seg.SOPClassUID, seg.SOPInstanceUID, seg.SeriesInstanceUID, number
            ),
            numbers=(
                ReportedNumber(PROBABILITY, DECEASED, 0.125 * number),
                ReportedNumber(PROBABILITY, ALIVE, 1 - 0.125 * number),
                ReportedNumber(DECISION_THRESHOLD, ALIVE, 0.7),
                ReportedNumber(N_SHIFTS, SURVIVAL, 20),
                ReportedNumber(SHIFTED_MEAN, ALIVE, 0.8),
                ReportedNumber(SHIFTED_SD, ALIVE, 0.01 * number),
                ReportedNumber(TRAINING_PERCENTILE, SURVIVAL, 12.5 * number, PERCENT),
            ),
            risk_groups=(ReportedRiskGroup(SURVIVAL, is_high=number == 3),),
            padded_fraction=0.01 * number,
            notices=("lesion_exceeds_patch",) if number == 2 else (),
            features_sha256="ab" * 32,
        )
        for number, lesion in enumerate(study.scene.lesions, start=1)
    ]


def many(lesions, n: int) -> list[ReportedLesion]:
    return [
        replace(lesions[k % 3], lesion_id=f"lesion-{k}", tracking_uid=f"2.25.88{k}")
        for k in range(n)
    ]


ODD = ("no label", "umlauts", "long")
"""Lesions that `make_odd` knows."""


def make_odd(lesions, case: str) -> list[ReportedLesion]:
    """Leave labels out, or call everything by names that need care."""
    if case == "no label":
        return [replace(lesion, label="") for lesion in lesions]
    if case == "umlauts":
        head = Target("köpfe/ÖÄÜ-ß", UMLAUTS)
        number = chance(head.head, UMLAUTS, UMLAUTS, 0.5)
        label, notices = UMLAUTS, ()
    else:
        head = Target("h" * 70, "t" * 70)
        number = chance(head.head, head.title, "c" * 70, -1.5e-7)
        label, notices = "l" * 70, ("n" * 70,)
    groups = (ReportedRiskGroup(head, is_high=True),)
    return [
        replace(lesion, label=label, notices=notices, numbers=(number,), risk_groups=groups)
        for lesion in lesions
    ]


def groups_of(report: Dataset) -> list[Dataset]:
    container = next(item for item in report.ContentSequence if name_of(item) == "126010")
    return list(container.ContentSequence)


def name_of(item: Dataset) -> str:
    return item.ConceptNameCodeSequence[0].CodeValue


def texts_of(group: Dataset, code: str) -> list[str]:
    return [item.TextValue for item in group.ContentSequence if name_of(item) == code]


def item_of(group: Dataset, code: str) -> Dataset:
    return next(item for item in group.ContentSequence if name_of(item) == code)
