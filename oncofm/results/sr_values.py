"""What a structured report says, before it is put into DICOM."""

from dataclasses import dataclass

from pydicom.sr.coding import Code

from oncofm.results.sr_codes import ENTIRE_BODY, LESION, NO_UNITS, one_line, private_code

_TITLE_BYTES = 40
"""What the title of a head may take of a Code Meaning."""


@dataclass(frozen=True)
class SegmentReference:
    """The segment of a SEG that a lesion was taken from.

    Attributes
    ----------
    sop_class_uid, sop_instance_uid, series_uid : str
        Of the SEG.
    segment_number : int
        Segment Number (0062,0004).
    study_uid : str
        Of the SEG; empty if it lies in the study of the images.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    segment_number: int
    study_uid: str = ""


@dataclass(frozen=True)
class Target:
    """What a number or answer is about: a head, or one of its outputs.

    Attributes
    ----------
    head, title : str
        Name of the head, and what it predicts.
    output : str
        The class, or the quantity of a head that gives one value; empty for the head as a whole.
    """

    head: str
    title: str
    output: str = ""

    @property
    def code(self) -> Code:
        """Code of the private scheme; other heads and outputs have others."""
        if not self.output:
            return private_code(self.head, self.title)
        # The output comes last in the meaning, so the title gives way.
        return self.qualified(self.output, self.output)

    def qualified(self, name: str, text: str) -> Code:
        """Code of something about the head, as the code of an output is."""
        return private_code(f"{self.head}.{name}", f"{one_line(self.title, _TITLE_BYTES)}: {text}")

    @property
    def full_text(self) -> str:
        """All names, which codes may have cut."""
        parts = {"head": self.head, "title": self.title, "output": self.output}
        return ", ".join(f"{name}={text}" for name, text in parts.items() if text)


@dataclass(frozen=True)
class ReportedNumber:
    """A number that a head gave, or that belongs to it.

    Attributes
    ----------
    name : pydicom.sr.coding.Code
        Its concept: a probability, a threshold ...
    target : Target
        What it is about.
    value : float
        One that is not finite is left out.
    unit : pydicom.sr.coding.Code
        From UCUM.
    """

    name: Code
    target: Target
    value: float
    unit: Code = NO_UNITS


@dataclass(frozen=True)
class ReportedRiskGroup:
    """On which side of a head's threshold a lesion is.

    Attributes
    ----------
    target : Target
        The head as a whole.
    is_high : bool
        Whether that is the worse side.
    """

    target: Target
    is_high: bool


@dataclass(frozen=True)
class ReportedLesion:
    """What is reported about one lesion.

    Attributes
    ----------
    lesion_id : str
        Unique within the report.
    label : str
        What the source calls it; may be empty.
    tracking_uid : str
        Tracking Unique Identifier that the source gave it. An empty or invalid one, or one that
        several lesions share, is replaced by one that follows from the series and the lesion.
    position_mm : tuple of float
        The seed, LPS mm.
    extent_mm : tuple of float or None
        Edges of its bounding box, where a mask was given.
    volume_mm3 : float or None
        Where a mask was given.
    segment : SegmentReference or None
        Where it was taken from a SEG.
    padded_fraction : float or None
        Share of the patch that lay outside the volume, 0 to 1.
    notices : tuple of str
        Codes of the notices about it.
    features_sha256 : str
        Of its feature vector; may be empty.
    numbers : tuple of ReportedNumber
        Each name and target at most once.
    risk_groups : tuple of ReportedRiskGroup
        Each head at most once.
    finding, finding_site : pydicom.sr.coding.Code
        What it is, and where in the body; the general codes say that this is not known.
    """

    lesion_id: str
    label: str
    tracking_uid: str
    position_mm: tuple[float, float, float]
    extent_mm: tuple[float, float, float] | None = None
    volume_mm3: float | None = None
    segment: SegmentReference | None = None
    padded_fraction: float | None = None
    notices: tuple[str, ...] = ()
    features_sha256: str = ""
    numbers: tuple[ReportedNumber, ...] = ()
    risk_groups: tuple[ReportedRiskGroup, ...] = ()
    finding: Code = LESION
    finding_site: Code = ENTIRE_BODY


@dataclass(frozen=True)
class ReportProvenance:
    """What made the results.

    Attributes
    ----------
    software, version : str
        The program.
    model, weights_sha256 : str
        The encoder and its weights.
    profile : str
        Preprocessing profile.
    configuration_hash : str
        SHA-256 of the configuration of the run.
    caution : str
        What makes the results meaningless, such as random weights; empty if nothing does.
    """

    software: str
    version: str
    model: str
    weights_sha256: str
    profile: str
    configuration_hash: str
    caution: str = ""
