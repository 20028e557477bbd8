"""What a reader of annotations gives: lesions, grouped by the images they were drawn on."""

from dataclasses import dataclass

from oncofm.seeds.references import Reference
from oncofm.seeds.seed import RejectedSeed, Seed


@dataclass(frozen=True)
class SeedGroup:
    """Lesions that were drawn on the same images.

    Attributes
    ----------
    reference : Reference
        What is said about those images.
    seeds : tuple of Seed or RejectedSeed
        In the order of the object; every segment, ROI or measurement group is there.
    """

    reference: Reference
    seeds: tuple[Seed | RejectedSeed, ...]


@dataclass(frozen=True)
class AnnotationSeeds:
    """The lesions of one DICOM object: a SEG, an RTSTRUCT or an SR.

    Attributes
    ----------
    sop_instance_uid, series_uid, study_uid : str
        Of the object.
    groups : tuple of SeedGroup
        One for a SEG; an RTSTRUCT or SR may speak of several series.
    """

    sop_instance_uid: str
    series_uid: str
    study_uid: str
    groups: tuple[SeedGroup, ...]

    @property
    def seeds(self) -> tuple[Seed | RejectedSeed, ...]:
        """The lesions of all groups."""
        return tuple(seed for group in self.groups for seed in group.seeds)
