"""A CUDA device, as far as the encoder needs one: everything here takes a card to run."""

from collections.abc import Callable

import torch
from torch import Tensor

_FIRST_WITH_TF32 = (8, 0)
"""Compute capability; bfloat16 came with it."""


class Mark:
    """A place in a lane's work."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        # Whoever waits sleeps: the cores belong to the readers.
        self.event = torch.cuda.Event(blocking=True)
        self.event.record(stream)

    def wait(self) -> None:
        """Wait until the device has come here."""
        self.event.synchronize()


class Lane:
    """Work for the device that is done in order, beside that of other lanes: a CUDA stream."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)

    def put(self, work: Callable[[], object]) -> None:
        """Issue work; it is done later."""
        with torch.cuda.stream(self.stream):
            work()

    def mark(self) -> Mark:
        """Mark the end of what was put so far."""
        return Mark(self.stream)

    def after(self, mark: Mark) -> None:
        """Let what is put from now on wait for another lane."""
        self.stream.wait_event(mark.event)


class Gpu:
    """One card.

    Parameters
    ----------
    device : torch.device
        With its index.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def name(self) -> str:
        """As outputs name it: ``cuda:0``."""
        return str(self.device)

    def lane(self) -> Lane:
        """Open a lane."""
        return Lane(self.device)

    def zeros(self, shape: tuple[int, ...]) -> Tensor:
        """Float32 on the device."""
        return torch.zeros(shape, device=self.device)

    def staging(self, shape: tuple[int, ...]) -> Tensor:
        """Float32 in memory of this process that the device can reach by itself."""
        return torch.empty(shape, pin_memory=True)

    def capture(self, work: Callable[[], Tensor], lane: Lane) -> Callable[[], Tensor]:
        """Record what `work` does as a graph; returns what does it again, into the same result.

        Raises
        ------
        RuntimeError
            If something in it cannot be recorded, or memory is short.
        """
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=lane.stream, capture_error_mode="thread_local"):
            result = work()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay

    def settle(self) -> None:
        """Wait for all lanes, and give unused memory back."""
        torch.cuda.synchronize(self.device)
        torch.cuda.empty_cache()

    def free_bytes(self) -> int:
        """Memory that nobody uses, of this process or another."""
        return torch.cuda.mem_get_info(self.device)[0]

    def has_tf32(self) -> bool:
        """Whether it multiplies in TF32 and bfloat16."""
        return torch.cuda.get_device_capability(self.device) >= _FIRST_WITH_TF32
