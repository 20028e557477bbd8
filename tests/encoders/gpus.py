"""A GPU without a card: its lanes do their work as late, and in as odd an order, as marks allow."""

import random
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

N_FEATURES = 4096


class Mark:
    def __init__(self, device: "FakeGpu") -> None:
        self.reached = False
        self._device = device

    def wait(self) -> None:
        while not self.reached:
            self._device.advance()


class Lane:
    def __init__(self, device: "FakeGpu") -> None:
        self.todo: deque[Mark | Callable[[], object]] = deque()
        self._device = device

    def put(self, work: Callable[[], object]) -> None:
        self.todo.append(work)

    def mark(self) -> Mark:
        mark = Mark(self._device)

        def reach() -> None:
            mark.reached = True

        self.todo.append(reach)
        return mark

    def after(self, mark: Mark) -> None:
        self.todo.append(mark)

    @property
    def can_go_on(self) -> bool:
        return bool(self.todo) and (not isinstance(self.todo[0], Mark) or self.todo[0].reached)


class FakeGpu:
    """A `oncofm.encoders.gpu_engine.Device`.

    `limit` is the number of patches that fit in its memory; `error` is raised by what computes,
    `capture_error` by what records.
    """

    name = "cuda:0"

    def __init__(self, seed: int = 0) -> None:
        self.limit = 1_000
        self.error: Exception | None = None
        self.capture_error: Exception | None = None
        self.computed: list[int] = []
        self.n_recorded = self.n_replayed = 0
        self.left_at_settle: list[int] = []
        self._random = random.Random(seed)
        self._lanes: list[Lane] = []
        self._tensors: list[weakref.ref[Tensor]] = []

    # --- what the engine asks of a device -------------------------------------------------

    def lane(self) -> Lane:
        self._lanes.append(Lane(self))
        return self._lanes[-1]

    def zeros(self, shape: tuple[int, ...]) -> Tensor:
        tensor = torch.zeros(shape)
        self._tensors.append(weakref.ref(tensor))
        return tensor

    def staging(self, shape: tuple[int, ...]) -> Tensor:
        return torch.full(shape, torch.nan)

    def capture(self, work: Callable[[], Tensor], lane: Lane) -> Callable[[], Tensor]:
        if self.capture_error is not None:
            raise self.capture_error
        self.n_recorded += 1
        result = torch.empty_like(work())

        def replay() -> Tensor:
            self.n_replayed += 1
            return result.copy_(work())

        return replay

    def settle(self) -> None:
        while any(lane.todo for lane in self._lanes):
            with suppress(RuntimeError):
                self.advance()
        self.left_at_settle.append(sum(tensor() is not None for tensor in self._tensors))

    def free_bytes(self) -> int:
        return 3 * 2**20

    # --- how it works ---------------------------------------------------------------------

    def advance(self) -> None:
        """Do one piece of work of any lane that may go on."""
        lane = self._random.choice([lane for lane in self._lanes if lane.can_go_on])
        work = lane.todo.popleft()
        if not isinstance(work, Mark):
            work()

    def compute(self, patches: Tensor) -> Tensor:
        """The network: its features are the first voxels of each patch, times 2."""
        if self.error is not None:
            raise self.error
        if len(patches) > self.limit:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried {len(patches)}")
        self.computed.append(len(patches))
        return patches.flatten(1)[:, :N_FEATURES] * 2


def features_of(patches: np.ndarray) -> np.ndarray:
    return patches.reshape(len(patches), -1)[:, :N_FEATURES] * 2
