"""How a batch is worked through; none of it changes a result."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchOptions:
    """What the user chose about the way, not about the features.

    Attributes
    ----------
    n_readers : int
        Processes that read.
    time_limit_s : float
        For reading one item.
    resume : bool
        Go on with what the output folder holds.
    retry_failed : bool
        Also try again what failed before.
    limit : int or None
        Stop after as many items.
    shard : tuple of (int, int)
        Number of the shard, from 0, and how many there are: this one takes every n-th item.
    cluster : str
        Address of a dask scheduler whose workers compute; empty: this process does.
    """

    n_readers: int = 2
    time_limit_s: float = 600.0
    resume: bool = False
    retry_failed: bool = False
    limit: int | None = None
    shard: tuple[int, int] = (0, 1)
    cluster: str = ""
