"""What a report says, before it is a page."""

from dataclasses import dataclass

from oncofm.biomarkers.card import HeadCard
from oncofm.biomarkers.predictions import Prediction
from oncofm.notices import Notice
from oncofm.results.manifest import RunManifest
from oncofm.results.report.preview import Preview
from oncofm.seeds.seed import RejectedSeed, Seed


@dataclass(frozen=True)
class ReportedCase:
    """The volume that lesions lie in.

    Attributes
    ----------
    case_id : str
        Series Instance UID or file name.
    study_uid, series_uid, modality : str
        Empty where the input is not DICOM.
    """

    case_id: str
    study_uid: str = ""
    series_uid: str = ""
    modality: str = ""


@dataclass(frozen=True)
class ReportedLesion:
    """A lesion, done or not.

    Attributes
    ----------
    case : ReportedCase
        Where it lies.
    seed : Seed or RejectedSeed
        What was asked for.
    state : str
        ``done``, ``rejected`` or ``failed``.
    reason, message : str
        Reason code and sentence, empty when done.
    notices : tuple of Notice
        Warnings.
    padded_fraction : float or None
        Share of the patch that lies outside the volume.
    predictions : tuple of Prediction
        What the heads say.
    preview : Preview or None
        Pictures of the lesion.
    no_preview : str
        Why there are none; empty where the reason says so.
    """

    case: ReportedCase
    seed: Seed | RejectedSeed
    state: str
    reason: str = ""
    message: str = ""
    notices: tuple[Notice, ...] = ()
    padded_fraction: float | None = None
    predictions: tuple[Prediction, ...] = ()
    preview: Preview | None = None
    no_preview: str = ""


@dataclass(frozen=True)
class LeftOut:
    """A case that is not done, an input that is no case, or an output that could not be written.

    Attributes
    ----------
    level : str
        ``case``, ``series``, ``file`` or ``output``.
    name : str
        Series Instance UID or file name; empty where the message names it.
    state : str
        ``partial``, ``rejected`` or ``failed``.
    reason, message : str
        Reason code, which an output has none of, and sentence.
    modality : str
        Empty where unknown.
    """

    level: str
    name: str
    state: str
    reason: str
    message: str
    modality: str = ""


@dataclass(frozen=True)
class Download:
    """A file of the run.

    Attributes
    ----------
    path : str
        Relative to the page, with ``/``.
    what : str
        What it holds, in a few words.
    """

    path: str
    what: str


@dataclass(frozen=True)
class Page:
    """Everything in a report.

    Attributes
    ----------
    manifest : RunManifest
        What ran, and how it ended.
    heads : tuple of HeadCard
        That were asked; a column each.
    lesions : tuple of ReportedLesion
        In the order of the tables; those that `manifest` counts and are not here are said to be
        in the tables only.
    left_out : tuple of LeftOut
        What is not done.
    downloads : tuple of Download
        Files that lie beside the page.
    """

    manifest: RunManifest
    heads: tuple[HeadCard, ...] = ()
    lesions: tuple[ReportedLesion, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    downloads: tuple[Download, ...] = ()
