"""How an overlay looks: its panels, marks and text; it knows pixels and no volumes."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from oncofm.seeds.measure import PATCH_EDGE_MM
from oncofm.seeds.seed import Seed

PANEL_MM, PANEL_PX = 120.0, 480
"""Side of the square that a panel shows, and its pixels: 0.25 mm each."""
WINDOW_HU = (-1000.0, 400.0)
"""Black and white: wide enough to tell vessels in the lung and organs in the mediastinum."""
SCALE_BAR_MM = 20.0

PANELS_TOP_PX, MARGIN_PX, FOOTER_PX = 92, 12, 38
HEADING_PX, MOST_LINES = 52, 24
"""Of a picture that is to stand alone: height of the band above it, and text below it."""

_PX_PER_MM = PANEL_PX / PANEL_MM
_CENTRE_PX = PANEL_PX // 2
_LINE_PX = 2
_GAP_PX, _ARM_PX = 8, 26
"""Of the cross hair: where its arms begin and end, from the seed."""
_DASH_PX, _DASH_PERIOD_PX = 8, 14
_LEGEND_PX, _SWATCH_PX = 1200, 28
_TEXT_LINE_PX = 30
_HATCH_PX, _HATCH_PERIOD_PX = 3, 12
_DEFLATE_LEVEL = 2
"""Noise does not get much smaller with more effort, only slower."""

_Colour = tuple[int, int, int]
_BACKGROUND: _Colour = (22, 24, 28)
_BLACK: _Colour = (0, 0, 0)
_TEXT: _Colour = (235, 235, 235)
_QUIET_TEXT: _Colour = (175, 180, 188)
_CUBE: _Colour = (86, 180, 233)
_SEED: _Colour = (255, 225, 50)
_LESION: _Colour = (255, 140, 60)
_HATCH: tuple[_Colour, _Colour] = ((40, 36, 74), (84, 76, 140))
"""Ground and stripes of what is outside the volume."""

_UID_HEAD, _UID_TAIL = 12, 16
_MOST_CHARACTERS = 1000
"""More than a line has room for, in any letters."""
_GLYPHS = frozenset(chr(code) for code in range(32, 127)) | {"·", "…"}
"""What the built-in font can draw, and the texts here need."""


@dataclass(frozen=True)
class Plane:
    """A plane of the world and the way it is looked at.

    Attributes
    ----------
    name, viewpoint : str
        For the caption.
    across, down : int
        World axis (0 = x, 1 = y, 2 = z of LPS) that runs along the rows and the columns of the
        panel; `across` always grows to the right.
    down_sign : int
        1 if the coordinate grows downwards, -1 if it grows upwards.
    letters : tuple of str
        Sides of the patient at the left, right, top and bottom edge.
    """

    name: str
    viewpoint: str
    across: int
    down: int
    down_sign: int
    letters: tuple[str, str, str, str]

    @property
    def through(self) -> int:
        """World axis that the plane is perpendicular to."""
        return 3 - self.across - self.down


PLANES = (
    Plane("axial", "seen from the feet", 0, 1, 1, ("R", "L", "A", "P")),
    Plane("coronal", "seen from the front", 0, 2, -1, ("R", "L", "H", "F")),
    Plane("sagittal", "seen from the left", 1, 2, -1, ("A", "P", "H", "F")),
)
"""In radiological convention, in the order of the panels."""


def panel_corner_px(number: int) -> tuple[int, int]:
    """Left and top pixel of a panel (0, 1, 2) in the picture."""
    return MARGIN_PX + number * (PANEL_PX + MARGIN_PX), PANELS_TOP_PX


# --- a panel ------------------------------------------------------------------------------


def draw_panel(
    hu: np.ndarray,
    inside: np.ndarray,
    plane: Plane,
    extent_mm: tuple[float, float, float] | None,
) -> Image.Image:
    """Draw a plane with its marks.

    Parameters
    ----------
    hu : numpy.ndarray
        Hounsfield units, shape (PANEL_PX, PANEL_PX); the seed is in the middle.
    inside : numpy.ndarray
        bool, same shape; the rest is hatched.
    plane : Plane
        Which plane it is.
    extent_mm : tuple of float or None
        Size of the lesion (x, y, z), if known.

    Returns
    -------
    PIL.Image.Image
        RGB, PANEL_PX wide and high.
    """
    panel = Image.fromarray(_grey(hu)).convert("RGB")
    outside = Image.fromarray(np.where(inside, 0, 255).astype(np.uint8))
    panel.paste(Image.fromarray(_hatching()), mask=outside)
    draw = ImageDraw.Draw(panel)
    _draw_box(draw, PATCH_EDGE_MM, PATCH_EDGE_MM, _CUBE, PANEL_PX, PANEL_PX)
    if extent_mm is not None:
        across_mm, down_mm = extent_mm[plane.across], extent_mm[plane.down]
        _draw_box(draw, across_mm, down_mm, _LESION, _DASH_PX, _DASH_PERIOD_PX)
    _draw_cross_hair(draw, _CENTRE_PX, _CENTRE_PX)
    _draw_letters(draw, plane.letters)
    _draw_scale_bar(draw)
    return panel


def _grey(hu: np.ndarray) -> np.ndarray:
    black, white = WINDOW_HU
    return np.rint((hu - black) / (white - black) * 255).clip(0, 255).astype(np.uint8)


@cache
def _hatching() -> np.ndarray:
    down, across = np.ogrid[:PANEL_PX, :PANEL_PX]
    on_stripe = (down + across) % _HATCH_PERIOD_PX < _HATCH_PX
    return np.where(on_stripe[..., None], _HATCH[1], _HATCH[0]).astype(np.uint8)


def _draw_box(
    draw: ImageDraw.ImageDraw,
    width_mm: float,
    height_mm: float,
    colour: _Colour,
    dash_px: int,
    period_px: int,
) -> None:
    """Outline a box around the seed in dashes, which begin at its corners."""
    left, top, right, bottom = (
        _CENTRE_PX + sign * round(min(size_mm, 2 * PANEL_MM) / 2 * _PX_PER_MM)
        for sign, size_mm in ((-1, width_mm), (-1, height_mm), (1, width_mm), (1, height_mm))
    )
    for x in (left - 1, right - 1):
        for start in range(top - 1, bottom + 1, period_px):
            stop = min(start + dash_px, bottom + 1)
            _fill(draw, x, start, x + _LINE_PX, stop, colour)
    for y in (top - 1, bottom - 1):
        for start in range(left - 1, right + 1, period_px):
            stop = min(start + dash_px, right + 1)
            _fill(draw, start, y, stop, y + _LINE_PX, colour)


def _draw_cross_hair(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    """Draw four arms, edged in black, around the corner that four pixels share."""
    for edge, colour in ((1, _BLACK), (0, _SEED)):
        thick = _LINE_PX // 2 + edge
        for start, stop in ((-_ARM_PX, -_GAP_PX), (_GAP_PX, _ARM_PX)):
            _fill(draw, x + start - edge, y - thick, x + stop + edge, y + thick, colour)
            _fill(draw, x - thick, y + start - edge, x + thick, y + stop + edge, colour)


def _fill(
    draw: ImageDraw.ImageDraw, left: int, top: int, right: int, bottom: int, colour: _Colour
) -> None:
    """Fill the half-open box [left, right) x [top, bottom); Pillow's own includes the end."""
    draw.rectangle((left, top, right - 1, bottom - 1), fill=colour)


def _draw_letters(draw: ImageDraw.ImageDraw, letters: tuple[str, str, str, str]) -> None:
    edge = 7
    places = (
        (edge, _CENTRE_PX, "lm"),
        (PANEL_PX - edge, _CENTRE_PX, "rm"),
        (_CENTRE_PX, edge, "mt"),
        (_CENTRE_PX, PANEL_PX - edge, "mb"),
    )
    for letter, (x, y, anchor) in zip(letters, places, strict=True):
        _write_over_image(draw, x, y, letter, 22, anchor)


def _draw_scale_bar(draw: ImageDraw.ImageDraw) -> None:
    left, bottom = 12, PANEL_PX - 12
    right = left + round(SCALE_BAR_MM * _PX_PER_MM)
    for edge, colour in ((1, _BLACK), (0, _TEXT)):
        _fill(draw, left - edge, bottom - _LINE_PX - edge, right + edge, bottom + edge, colour)
        for x in (left, right - _LINE_PX):
            _fill(draw, x - edge, bottom - 8 - edge, x + _LINE_PX + edge, bottom + edge, colour)
    _write_over_image(draw, (left + right) // 2, bottom - 13, f"{SCALE_BAR_MM:g} mm", 15, "mb")


def _write_over_image(
    draw: ImageDraw.ImageDraw, x: int, y: int, text: str, size_px: int, anchor: str
) -> None:
    draw.text((x, y), text, _TEXT, _font(size_px), anchor, stroke_width=2, stroke_fill=_BLACK)


# --- the picture --------------------------------------------------------------------------


def compose(panels: Sequence[Image.Image], seed: Seed, volume_id: str, title: str) -> Image.Image:
    """Put the panels beside each other, with a header above and a legend below.

    Parameters
    ----------
    panels : sequence of PIL.Image.Image
        In the order of `PLANES`.
    seed : Seed
        For its id, position and extent.
    volume_id : str
        UID or file name; the middle of a long one is left out.
    title : str
        Stands behind the lesion id.

    Returns
    -------
    PIL.Image.Image
        RGB.
    """
    width = panel_corner_px(len(panels))[0]
    picture = Image.new("RGB", (width, PANELS_TOP_PX + PANEL_PX + FOOTER_PX), _BACKGROUND)
    draw = ImageDraw.Draw(picture)
    _draw_header(draw, width, seed, volume_id, title)
    for number, (plane, panel) in enumerate(zip(PLANES, panels, strict=True)):
        left, top = panel_corner_px(number)
        picture.paste(panel, (left, top))
        at = f"{'xyz'[plane.through]} = {seed.position_mm[plane.through]:.1f} mm"
        caption = f"{plane.name} · {plane.viewpoint} · {at}"
        draw.text((left, top - 8), caption, _QUIET_TEXT, _font(15), "ls")
    legend = _legend(seed.extent_mm is not None)
    picture.paste(legend, (MARGIN_PX, PANELS_TOP_PX + PANEL_PX))
    return picture


def add_bands(picture: Image.Image, heading: str, lines: Sequence[str]) -> Image.Image:
    """Put a heading above a picture and lines of text below it.

    Parameters
    ----------
    picture : PIL.Image.Image
        As `compose` makes it.
    heading : str
        Stands in large letters in the middle of a band of `HEADING_PX`.
    lines : sequence of str
        Each is cut off where it has no room; characters that the built-in font lacks become
        question marks. Of more than `MOST_LINES` the rest is counted.

    Returns
    -------
    PIL.Image.Image
        RGB, as wide as the picture.
    """
    shown = list(lines[:MOST_LINES])
    if len(lines) > MOST_LINES:
        shown.append(f"… and {len(lines) - MOST_LINES} more")
    below = HEADING_PX + picture.height
    height = below + len(shown) * _TEXT_LINE_PX + (MARGIN_PX if shown else 0)
    whole = Image.new("RGB", (picture.width, height), _BACKGROUND)
    whole.paste(picture, (0, HEADING_PX))
    draw = ImageDraw.Draw(whole)
    room = picture.width - 2 * MARGIN_PX
    middle = picture.width // 2, HEADING_PX // 2
    draw.text(middle, _fit(heading, 30, room), _LESION, _font(30), "mm")
    for number, line in enumerate(shown):
        y = below + number * _TEXT_LINE_PX + _TEXT_LINE_PX // 2
        draw.text((MARGIN_PX, y), _fit(line, 22, room), _TEXT, _font(22), "lm")
    return whole


def _draw_header(
    draw: ImageDraw.ImageDraw, width: int, seed: Seed, volume_id: str, title: str
) -> None:
    right = width - MARGIN_PX
    research = "research use only"
    draw.text((right, 30), research, _LESION, _font(17), "rs")
    room = right - 2 * MARGIN_PX - _font(17).getlength(research)
    name = " · ".join(part for part in (seed.lesion_id, title) if part)
    draw.text((MARGIN_PX, 30), _fit(name, 20, room), _TEXT, _font(20), "ls")

    x, y, z = seed.position_mm
    facts = [f"seed LPS {x:.1f}, {y:.1f}, {z:.1f} mm"]
    if seed.extent_mm is not None:
        facts.append("lesion " + " x ".join(f"{size:.1f}" for size in seed.extent_mm) + " mm")
    facts.append(f"volume {_shorten(volume_id)}")
    line = _fit(" · ".join(facts), 16, right - MARGIN_PX)
    draw.text((MARGIN_PX, 55), line, _TEXT, _font(16), "ls")


def _legend(has_extent: bool) -> Image.Image:
    """Draw a strip that says what the marks are."""
    strip = Image.new("RGB", (_LEGEND_PX, FOOTER_PX), _BACKGROUND)
    draw = ImageDraw.Draw(strip)
    middle, x = FOOTER_PX // 2, 0

    def label(x: int, text: str) -> int:
        draw.text((x, middle), text, _QUIET_TEXT, _font(15), "lm")
        return x + round(_font(15).getlength(text)) + 30

    for start, stop in ((-13, -4), (4, 13)):
        _fill(draw, x + 14 + start, middle - 1, x + 14 + stop, middle + 1, _SEED)
        _fill(draw, x + 13, middle + start, x + 15, middle + stop, _SEED)
    x = label(x + _SWATCH_PX + 7, "seed")
    _fill(draw, x, middle - 1, x + _SWATCH_PX, middle + 1, _CUBE)
    x = label(x + _SWATCH_PX + 7, f"{PATCH_EDGE_MM:g} mm cube that the model sees")
    if has_extent:
        for start in range(x, x + _SWATCH_PX, 10):
            _fill(draw, start, middle - 1, start + 7, middle + 1, _LESION)
        x = label(x + _SWATCH_PX + 7, "size of the lesion, centred on the seed")
    strip.paste(Image.fromarray(_hatching()[:16, :_SWATCH_PX]), (x, middle - 8))
    x = label(x + _SWATCH_PX + 7, "outside the volume")
    black, white = WINDOW_HU
    label(x, f"window {black:g} to {white:g} HU")
    return strip


def _shorten(uid: str) -> str:
    if len(uid) <= _UID_HEAD + _UID_TAIL + 1:
        return uid
    return f"{uid[:_UID_HEAD]}…{uid[-_UID_TAIL:]}"


def _fit(text: str, size_px: int, room_px: float) -> str:
    """Make a text drawable on one line, and cut off what has no room."""
    text = " ".join(text[:_MOST_CHARACTERS].split())
    text = "".join(char if char in _GLYPHS else "?" for char in text)
    font = _font(size_px)
    if font.getlength(text) <= room_px:
        return text
    lengths = range(1, len(text) + 1)
    n_fit = bisect_right(lengths, room_px, key=lambda n: font.getlength(text[:n] + "…"))
    return text[:n_fit] + "…"


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size_px)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def save_png(picture: Image.Image, path: Path, software: str) -> None:
    """Write a PNG file with a ``Software`` text chunk, and nothing that changes with time."""
    info = PngInfo()
    info.add_text("Software", software)
    picture.save(path, format="PNG", pnginfo=info, compress_level=_DEFLATE_LEVEL)
