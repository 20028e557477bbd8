"""How stable a prediction is: the same lesion again, with shifted seeds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from oncofm.encoders.encoder import Encoder
from oncofm.imaging.patch import PatchSpec
from oncofm.seeds.seed import Seed
from oncofm.workflow.case import Case, CaseOutcome, LesionOutcome, judge
from oncofm.workflow.run import run_cases

SHIFT_SD_MM = 4.0
"""Standard deviation of the shifts along each axis, as in the paper (variance 16 mm2)."""

_SEED = 0


def run_cases_shifted(
    cases: Sequence[Case],
    load_encoder: Callable[[], Encoder],
    spec: PatchSpec,
    n_shifts: int,
) -> Iterator[CaseOutcome]:
    """Compute the features of every lesion of every case, also with shifted seeds.

    Parameters
    ----------
    cases, load_encoder, spec
        As for `oncofm.workflow.run.run_cases`.
    n_shifts : int
        Shifts per lesion, drawn from a normal distribution of `SHIFT_SD_MM` along each axis: the
        same for every lesion, and every time.

    Yields
    ------
    CaseOutcome
        One per case, as `run_cases` would give it; lesions that are done also have
        `LesionOutcome.shifted`, without the shifts that lead out of the volume.
    """
    shifted = (shift_seeds(case, n_shifts) for case in cases)
    for outcome in run_cases(shifted, load_encoder, spec):
        yield gather_shifts(outcome, n_shifts)


def shift_seeds(case: Case, n_shifts: int) -> Case:
    """Put its shifted copies behind every seed of a case."""
    if not n_shifts:
        return case
    shifts_mm = np.random.default_rng(_SEED).normal(scale=SHIFT_SD_MM, size=(n_shifts, 3))
    seeds = []
    for seed in case.seeds:
        seeds.append(seed)
        if isinstance(seed, Seed):
            shifted_mm = np.asarray(seed.position_mm) + shifts_mm
            seeds += [replace(seed, position_mm=tuple(point)) for point in shifted_mm.tolist()]
        else:
            seeds += [seed] * len(shifts_mm)
    return replace(case, seeds=tuple(seeds))


def gather_shifts(outcome: CaseOutcome, n_shifts: int) -> CaseOutcome:
    """Take the copies of `shift_seeds` back into the lesions that they came from."""
    if not n_shifts:
        return outcome
    step = 1 + n_shifts
    starts = range(0, len(outcome.lesions), step)
    lesions = tuple(
        _with_shifted(outcome.lesions[start], outcome.lesions[start + 1 : start + step])
        for start in starts
    )
    case = replace(outcome.case, seeds=outcome.case.seeds[::step])
    return judge(case, lesions)


def _with_shifted(lesion: LesionOutcome, copies: Sequence[LesionOutcome]) -> LesionOutcome:
    vectors = [copy.features for copy in copies if copy.features is not None]
    if lesion.features is None or not vectors:
        return lesion
    return replace(lesion, shifted=np.stack(vectors))
