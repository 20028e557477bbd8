"""Cases through the steps: reader threads sample patches while the encoder computes.

Patches of several cases share a batch; outcomes come back case by case, in the order given.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from oncofm.encoders.encoder import Encoder
from oncofm.errors import Rejected, SetupError, VoxelsNotFiniteError
from oncofm.imaging.patch import Patch, PatchSpec, sample_patch
from oncofm.imaging.volume import Volume
from oncofm.seeds.seed import RejectedSeed, Seed
from oncofm.workflow.case import Case, CaseOutcome, CaseState, LesionOutcome, judge

log = logging.getLogger(__name__)

_READERS = 2
_CHUNK = 32
"""Lesions of one case that are sampled as one piece of work: 16 MB of patches."""
_READ_AHEAD = 4
"""Pieces of work that may wait for the encoder; bounds the memory of a run."""


@dataclass
class _Pending:
    """A case whose lesions are still on their way."""

    case: Case
    lesions: list[LesionOutcome | None] = field(default_factory=list)


@dataclass(frozen=True)
class _Sampled:
    """One lesion after sampling: a patch to encode, or an outcome that is final already."""

    outcome: LesionOutcome
    patch: np.ndarray | None = None


def run_cases(
    cases: Iterable[Case], load_encoder: Callable[[], Encoder], spec: PatchSpec
) -> Iterator[CaseOutcome]:
    """Compute the features of every lesion of every case.

    Parameters
    ----------
    cases : iterable of Case
        Consumed a few cases ahead of the encoder.
    load_encoder : callable
        Gives the encoder; called once, when the first batch is full.
    spec : PatchSpec
        How patches are sampled.

    Yields
    ------
    CaseOutcome
        One per case, in the order of `cases`. What goes wrong in a case is in its outcome.

    Raises
    ------
    SetupError
        If the encoder itself cannot be loaded.
    """
    batch = _Batch(load_encoder)
    waiting: deque[_Pending] = deque()
    with ThreadPoolExecutor(_READERS, thread_name_prefix="reader") as readers:
        for pending, start, sampled in _sample_ahead(cases, readers, spec):
            if start == 0:
                waiting.append(pending)
            for index, lesion in enumerate(sampled, start):
                if lesion.patch is None:
                    pending.lesions[index] = lesion.outcome
                else:
                    batch.add(pending, index, lesion)
            if pending.case.volume is not None and start + len(sampled) == len(pending.lesions):
                pending.case.volume.release()  # else a long run would fill the caches
            while waiting and None not in waiting[0].lesions:
                yield _finish(waiting.popleft())
    batch.flush()
    while waiting:
        yield _finish(waiting.popleft())


def _sample_ahead(
    cases: Iterable[Case], readers: ThreadPoolExecutor, spec: PatchSpec
) -> Iterator[tuple[_Pending, int, list[_Sampled]]]:
    queue: deque[tuple[_Pending, int, Future[list[_Sampled]]]] = deque()
    for case in cases:
        pending = _Pending(case, [None] * len(case.seeds))
        for start in range(0, max(1, len(case.seeds)), _CHUNK):
            chunk = case.seeds[start : start + _CHUNK]
            queue.append((pending, start, readers.submit(_sample_lesions, case, chunk, spec)))
            if len(queue) > _READ_AHEAD:
                pending_, start_, future = queue.popleft()
                yield pending_, start_, future.result()
    while queue:
        pending_, start_, future = queue.popleft()
        yield pending_, start_, future.result()


def _sample_lesions(
    case: Case, seeds: tuple[Seed | RejectedSeed, ...], spec: PatchSpec
) -> list[_Sampled]:
    return [_sample_lesion(case, seed, spec) for seed in seeds]


def _sample_lesion(case: Case, seed: Seed | RejectedSeed, spec: PatchSpec) -> _Sampled:
    if isinstance(seed, RejectedSeed):
        return _Sampled(_rejected(seed, seed.error))
    if case.error is not None:
        return _Sampled(_rejected(seed, case.error))
    assert isinstance(case.volume, Volume), f"case {case.case_id} has neither volume nor error"
    try:
        patch = sample_patch(case.volume, seed.position_mm, spec)
        _check_finite(patch, seed)
    except Rejected as error:
        return _Sampled(_rejected(seed, error))
    except Exception as error:
        log.debug("sampling failed", exc_info=True)
        return _Sampled(_failed(seed, case, error, "sampling"))
    outcome = LesionOutcome(
        seed,
        CaseState.DONE,
        padded_fraction=patch.padded_fraction,
        notices=(*case.notices, *seed.notices, *patch.notices),
    )
    return _Sampled(outcome, patch.voxels)


def _check_finite(patch: Patch, seed: Seed) -> None:
    if not np.isfinite(patch.voxels).all():
        raise VoxelsNotFiniteError(
            f"The patch of lesion {seed.lesion_id} holds NaN or infinite voxels; export the "
            "volume again in Hounsfield units."
        )


class _Batch:
    """Patches that wait for the encoder, and the places their features go to."""

    def __init__(self, load_encoder: Callable[[], Encoder]) -> None:
        self._load = load_encoder
        self._encoder: Encoder | None = None
        self._waiting: list[tuple[_Pending, int, _Sampled]] = []

    def add(self, pending: _Pending, index: int, lesion: _Sampled) -> None:
        self._waiting.append((pending, index, lesion))
        if self._encoder is None:
            self._encoder = self._load()
        if len(self._waiting) >= self._encoder.batch_size:
            self.flush()

    def flush(self) -> None:
        if not self._waiting or self._encoder is None:
            return
        batch, self._waiting = self._waiting, []
        self._encode(self._encoder, batch)

    def _encode(self, encoder: Encoder, batch: list[tuple[_Pending, int, _Sampled]]) -> None:
        patches = np.stack([lesion.patch for _, _, lesion in batch if lesion.patch is not None])
        try:
            features = encoder.encode(patches)
        except SetupError:
            raise
        except Exception as error:
            log.debug("encoding failed", exc_info=True)
            if len(batch) > 1:  # one lesion must not take its batch mates down
                for member in batch:
                    self._encode(encoder, [member])
                return
            pending, index, lesion = batch[0]
            failed = _failed(lesion.outcome.seed, pending.case, error, "encoding")
            pending.lesions[index] = failed
            return
        for (pending, index, lesion), vector in zip(batch, features, strict=True):
            pending.lesions[index] = _with_features(lesion.outcome, vector)


def _with_features(outcome: LesionOutcome, vector: np.ndarray) -> LesionOutcome:
    if np.isfinite(vector).all():
        return replace(outcome, features=vector)
    message = (
        f"Lesion {outcome.seed.lesion_id} has features that are not finite; look for NaN or "
        "extreme voxel values around its seed."
    )
    return LesionOutcome(outcome.seed, CaseState.FAILED, "features_not_finite", message)


def _rejected(seed: Seed | RejectedSeed, error: Rejected) -> LesionOutcome:
    return LesionOutcome(seed, CaseState.REJECTED, error.code, str(error))


def _failed(seed: Seed | RejectedSeed, case: Case, error: Exception, step: str) -> LesionOutcome:
    # The text of a foreign exception may quote a data set, so only its type is repeated.
    message = (
        f"Lesion {seed.lesion_id} of case {case.case_id} failed while {step} "
        f"({type(error).__name__}); run again with --debug to see where."
    )
    return LesionOutcome(seed, CaseState.FAILED, f"{step}_failed", message)


def _finish(pending: _Pending) -> CaseOutcome:
    lesions = tuple(lesion for lesion in pending.lesions if lesion is not None)
    assert len(lesions) == len(pending.case.seeds), "a lesion was lost"
    return judge(pending.case, lesions)
