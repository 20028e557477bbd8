"""Cases through the steps: reader threads sample patches while the encoder computes.

Patches of several cases share a batch; outcomes come back case by case, in the order given.
"""

import logging
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

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


@dataclass(frozen=True)
class SampledLesion:
    """One lesion after sampling: a patch to encode, or an outcome that is final already.

    Attributes
    ----------
    outcome : LesionOutcome
        Without features.
    patch : numpy.ndarray or None
        Shape (1, 50, 50, 50) float32, if there is something to encode.
    """

    outcome: LesionOutcome
    patch: np.ndarray | None = None


@dataclass(frozen=True)
class SampledChunk:
    """Some lesions of a case, sampled as one piece of work.

    Attributes
    ----------
    key : hashable
        The same for all chunks of one case, and of no other.
    case : Case
        The case; a case without lesions is one empty chunk.
    start : int
        Number of the first lesion, from 0.
    lesions : tuple of SampledLesion
        In the order of the seeds.
    """

    key: Any
    case: Case
    start: int
    lesions: tuple[SampledLesion, ...]


class _Pending:
    """A case whose lesions are still on their way; goes to `finished` when all are there."""

    def __init__(self, key: Hashable, case: Case, finished: "list[_Pending]") -> None:
        self.key = key
        self.case = case
        self._finished = finished
        self._lesions: dict[int, LesionOutcome] = {}
        if not case.seeds:
            finished.append(self)

    def settle(self, index: int, outcome: LesionOutcome) -> None:
        self._lesions[index] = outcome
        if len(self._lesions) == len(self.case.seeds):
            self._finished.append(self)

    def outcome(self) -> CaseOutcome:
        return judge(self.case, tuple(self._lesions[index] for index in sorted(self._lesions)))


def run_cases(
    cases: Iterable[Case], load_encoder: Callable[[], Encoder], spec: PatchSpec
) -> Iterator[CaseOutcome]:
    """Compute the features of every lesion of every case.

    Parameters
    ----------
    cases : iterable of Case
        Consumed a few cases ahead of the encoder.
    load_encoder : callable
        Gives the encoder; called once, when the first patch is there.
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
    with ThreadPoolExecutor(_READERS, thread_name_prefix="reader") as readers:
        waiting: dict[Hashable, CaseOutcome] = {}
        n_yielded = 0
        chunks = _sample_ahead(cases, readers, spec)
        for number, outcome in encode_sampled(chunks, load_encoder):
            waiting[number] = outcome
            while n_yielded in waiting:
                yield waiting.pop(n_yielded)
                n_yielded += 1


def sample_case(case: Case, spec: PatchSpec, key: Hashable) -> Iterator[SampledChunk]:
    """Sample the lesions of a case, piece by piece; nothing is raised for a bad lesion."""
    for start in _chunk_starts(case):
        yield _sample_chunk(case, start, spec, key)


def encode_sampled(
    chunks: Iterable[SampledChunk], load_encoder: Callable[[], Encoder]
) -> Iterator[tuple[Any, CaseOutcome]]:
    """Encode sampled lesions in batches that are filled across cases.

    Parameters
    ----------
    chunks : iterable of SampledChunk
        Those of a case in any order, and mixed with those of others.
    load_encoder : callable
        Gives the encoder; called once, when the first patch is there.

    Yields
    ------
    key : hashable
        Of the case's chunks.
    outcome : CaseOutcome
        Of each case, as soon as its last lesion is there.
    """
    batch = _Batch(load_encoder)
    pending: dict[Hashable, _Pending] = {}
    finished: list[_Pending] = []

    def take_finished() -> Iterator[tuple[Any, CaseOutcome]]:
        while finished:
            one = finished.pop(0)
            del pending[one.key]
            yield one.key, one.outcome()

    for chunk in chunks:
        one = pending.get(chunk.key)
        if one is None:
            one = pending[chunk.key] = _Pending(chunk.key, chunk.case, finished)
        for index, lesion in enumerate(chunk.lesions, chunk.start):
            if lesion.patch is None:
                one.settle(index, lesion.outcome)
            else:
                batch.add(one, index, lesion)
        yield from take_finished()
    batch.flush()
    yield from take_finished()
    assert not pending, "a lesion was lost"


def _sample_ahead(
    cases: Iterable[Case], readers: ThreadPoolExecutor, spec: PatchSpec
) -> Iterator[SampledChunk]:
    queue: deque[Future[SampledChunk]] = deque()
    n_waiting: dict[Hashable, int] = {}

    def take() -> SampledChunk:
        chunk = queue.popleft().result()
        n_waiting[chunk.key] -= 1
        if n_waiting[chunk.key] == 0:
            del n_waiting[chunk.key]
            if chunk.case.volume is not None:
                chunk.case.volume.release()  # else a long run would fill the caches
        return chunk

    for key, case in enumerate(cases):
        starts = _chunk_starts(case)
        n_waiting[key] = len(starts)
        for start in starts:
            queue.append(readers.submit(_sample_chunk, case, start, spec, key))
            if len(queue) > _READ_AHEAD:
                yield take()
    while queue:
        yield take()


def _chunk_starts(case: Case) -> Sequence[int]:
    return range(0, max(1, len(case.seeds)), _CHUNK)


def _sample_chunk(case: Case, start: int, spec: PatchSpec, key: Hashable) -> SampledChunk:
    seeds = case.seeds[start : start + _CHUNK]
    lesions = tuple(_sample_lesion(case, seed, spec) for seed in seeds)
    return SampledChunk(key, case, start, lesions)


def _sample_lesion(case: Case, seed: Seed | RejectedSeed, spec: PatchSpec) -> SampledLesion:
    if isinstance(seed, RejectedSeed):
        return SampledLesion(_rejected(seed, seed.error))
    if case.error is not None:
        return SampledLesion(_rejected(seed, case.error))
    assert isinstance(case.volume, Volume), f"case {case.case_id} has neither volume nor error"
    try:
        patch = sample_patch(case.volume, seed.position_mm, spec)
        _check_finite(patch, seed)
    except Rejected as error:
        return SampledLesion(_rejected(seed, error))
    except Exception as error:
        log.debug("sampling failed", exc_info=True)
        return SampledLesion(_failed(seed, case, error, "sampling"))
    outcome = LesionOutcome(
        seed,
        CaseState.DONE,
        padded_fraction=patch.padded_fraction,
        notices=(*case.notices, *seed.notices, *patch.notices),
    )
    return SampledLesion(outcome, patch.voxels)


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
        self._waiting: list[tuple[_Pending, int, SampledLesion]] = []

    def add(self, pending: _Pending, index: int, lesion: SampledLesion) -> None:
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

    def _encode(self, encoder: Encoder, batch: list[tuple[_Pending, int, SampledLesion]]) -> None:
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
            pending.settle(index, _failed(lesion.outcome.seed, pending.case, error, "encoding"))
            return
        for (pending, index, lesion), vector in zip(batch, features, strict=True):
            pending.settle(index, _with_features(lesion.outcome, vector))


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
