"""Pictures of a lesion, small enough to lie in a page."""

import base64
import io
from dataclasses import dataclass

from PIL import Image

from oncofm.imaging.volume import Volume
from oncofm.results.overlay import draw_panels
from oncofm.seeds.seed import Seed

_QUALITY = 75
"""Of WebP: vessels and marks stay sharp at a third of the bytes that JPEG needs."""


@dataclass(frozen=True)
class Preview:
    """Three planes through a seed.

    Attributes
    ----------
    sources : tuple of str
        ``data:`` URIs of square WebP pictures, in the order of
        `oncofm.results.overlay_drawing.PLANES`.
    """

    sources: tuple[str, ...]

    @property
    def n_bytes(self) -> int:
        """What the pictures add to a page."""
        return sum(map(len, self.sources))


def draw_preview(volume: Volume, seed: Seed) -> Preview:
    """Draw three planes through a seed; the same volume and seed give the same text.

    Parameters
    ----------
    volume : Volume
        Only the voxels that the planes touch are read.
    seed : Seed
        The lesion.

    Raises
    ------
    SeedOutsideVolumeError
        If the seed lies beyond the outer edges of the voxels.
    SliceUndecodableError
        If a slice that a plane needs cannot be decoded.
    """
    return Preview(tuple(_data_uri(panel) for panel in draw_panels(volume, seed)))


def _data_uri(panel: Image.Image) -> str:
    file = io.BytesIO()
    panel.save(file, "WEBP", quality=_QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
