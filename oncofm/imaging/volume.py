"""What every volume can do, wherever its voxels lie."""

from typing import Protocol, runtime_checkable

import numpy as np

from oncofm.imaging.geometry import Geometry
from oncofm.notices import Notice


@runtime_checkable
class Volume(Protocol):
    """A CT volume whose voxels stay on disk until a box of them is asked for.

    Attributes
    ----------
    volume_id : str
        Series Instance UID (with ``#2``, ``#3`` ... behind it where one series holds several
        volumes), or the file name without its folder.
    geometry : Geometry
        Index -> LPS mm, for regular, sheared and unevenly spaced stacks.
    notices : tuple of Notice
        What was odd about this volume but did not forbid its use.
    """

    volume_id: str
    geometry: Geometry
    notices: tuple[Notice, ...]

    def read_box(self, start: tuple[int, int, int], stop: tuple[int, int, int]) -> np.ndarray:
        """Read the voxels ``[start, stop)`` and nothing else.

        Parameters
        ----------
        start, stop : tuple of int
            Half-open box in index order (column i, row j, slice k), inside the volume.

        Returns
        -------
        numpy.ndarray
            Hounsfield units, float32, shape ``(k, j, i)`` = ``(stop - start)[::-1]``.

        Raises
        ------
        SliceUndecodableError
            If a slice inside the box cannot be decoded.
        """
        ...

    def release(self) -> None:
        """Give back the memory of what was decoded; it is decoded again where it is needed."""
        ...
