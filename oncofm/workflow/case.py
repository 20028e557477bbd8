"""A case, the lesions in it, and how each of them ended."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from oncofm.errors import Rejected
from oncofm.imaging.volume import Volume
from oncofm.notices import Notice
from oncofm.seeds.seed import RejectedSeed, Seed

if TYPE_CHECKING:
    from oncofm.biomarkers.predictions import Prediction


class CaseState(StrEnum):
    """How a case or a lesion ended."""

    DONE = "done"
    PARTIAL = "partial"
    REJECTED = "rejected"
    FAILED = "failed"


@dataclass(frozen=True)
class Case:
    """One volume and the lesions that were asked for in it.

    Attributes
    ----------
    case_id : str
        The volume's id: a Series Instance UID or a file name.
    study_uid, series_uid, modality : str
        Empty where the input is not DICOM.
    volume : Volume or None
        None where the volume cannot be used; `error` then says why.
    seeds : tuple of Seed or RejectedSeed
        The lesions, in the order of their sources.
    error : Rejected or None
        Why no lesion of this case can be computed.
    notices : tuple of Notice
        About the case as a whole, the volume's own included.
    """

    case_id: str
    study_uid: str = ""
    series_uid: str = ""
    modality: str = ""
    volume: Volume | None = None
    seeds: tuple[Seed | RejectedSeed, ...] = ()
    error: Rejected | None = None
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class LesionOutcome:
    """How one lesion ended.

    Attributes
    ----------
    seed : Seed or RejectedSeed
        What was asked for.
    state : CaseState
        ``done``, ``rejected`` or ``failed``.
    reason, message : str
        Reason code and sentence, empty when done.
    features : numpy.ndarray or None
        Shape (n_features,) float32 when done.
    padded_fraction : float or None
        Share of the patch that lies outside the volume.
    notices : tuple of Notice
        Of the seed, of its patch and of its predictions.
    shifted : numpy.ndarray or None
        Shape (n_shifts, n_features) float32: with shifted seeds, where that was asked for.
    predictions : tuple of Prediction
        What each head says.
    """

    seed: Seed | RejectedSeed
    state: CaseState
    reason: str = ""
    message: str = ""
    features: np.ndarray | None = None
    padded_fraction: float | None = None
    notices: tuple[Notice, ...] = ()
    shifted: np.ndarray | None = None
    predictions: "tuple[Prediction, ...]" = ()


@dataclass(frozen=True)
class CaseOutcome:
    """How one case ended, lesion by lesion."""

    case: Case
    state: CaseState
    reason: str = ""
    message: str = ""
    lesions: tuple[LesionOutcome, ...] = field(default=())

    @property
    def done(self) -> tuple[LesionOutcome, ...]:
        """The lesions that have features."""
        return tuple(lesion for lesion in self.lesions if lesion.state is CaseState.DONE)


@dataclass(frozen=True)
class InputVerdict:
    """An input that was seen but is no case: another modality, a localiser, a broken file.

    Attributes
    ----------
    level : str
        ``series`` or ``file``.
    name : str
        Series Instance UID, or the file's path below the input.
    modality, study_uid : str
        Empty where unknown.
    error : Rejected
        Why it was left out.
    """

    level: str
    name: str
    error: Rejected
    modality: str = ""
    study_uid: str = ""


def judge(case: Case, lesions: tuple[LesionOutcome, ...]) -> CaseOutcome:
    """Sum the lesions of a case up to the state of the case.

    Parameters
    ----------
    case : Case
        The case.
    lesions : tuple of LesionOutcome
        One outcome per seed of the case.

    Returns
    -------
    CaseOutcome
        ``done`` if every lesion is, ``partial`` if some are; without any, ``failed`` if one
        failed, else ``rejected``. A case without lesions is never done.
    """
    if case.error is not None:
        return CaseOutcome(case, CaseState.REJECTED, case.error.code, str(case.error), lesions)
    states = [lesion.state for lesion in lesions]
    n_done = states.count(CaseState.DONE)
    if lesions and n_done == len(lesions):
        return CaseOutcome(case, CaseState.DONE, lesions=lesions)
    if not lesions:
        return CaseOutcome(
            case, CaseState.REJECTED, "no_seeds", f"Case {case.case_id} has no lesion."
        )
    first = next(lesion for lesion in lesions if lesion.state is not CaseState.DONE)
    if n_done:
        state = CaseState.PARTIAL
    elif CaseState.FAILED in states:
        state = CaseState.FAILED
        first = next(lesion for lesion in lesions if lesion.state is CaseState.FAILED)
    else:
        state = CaseState.REJECTED
    message = f"{len(lesions) - n_done} of {len(lesions)} lesions not done. {first.message}"
    return CaseOutcome(case, state, first.reason, message, lesions)
