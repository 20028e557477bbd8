"""Stored pixel values of one frame, read and decoded without its neighbours."""

from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from pydicom import dcmread
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from oncofm.imaging.header import Header, read_header
from oncofm.imaging.sources import Source

_SAMPLES_PER_PIXEL = 0x00280002
_PHOTOMETRIC_INTERPRETATION = 0x00280004
_NUMBER_OF_FRAMES = 0x00280008
_ROWS = 0x00280010
_COLUMNS = 0x00280011
_BITS_ALLOCATED = 0x00280100
_BITS_STORED = 0x00280101
_PIXEL_REPRESENTATION = 0x00280103
_EXTENDED_OFFSETS = 0x7FE00001
_EXTENDED_LENGTHS = 0x7FE00002
_PIXEL_DATA = 0x7FE00010
_WANTED = frozenset(
    (
        *(_SAMPLES_PER_PIXEL, _PHOTOMETRIC_INTERPRETATION, _NUMBER_OF_FRAMES, _ROWS, _COLUMNS),
        *(_BITS_ALLOCATED, _BITS_STORED, _PIXEL_REPRESENTATION),
        *(_EXTENDED_OFFSETS, _EXTENDED_LENGTHS),
    )
)

_FASTEST_PLUGIN = {
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
}
"""pydicom tries GDCM first, which takes twice as long for JPEG-LS."""

_PLAIN_SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_PLAIN_OPTIONS = {
    "rows": range(1, 1 << 16),
    "columns": range(1, 1 << 16),
    "bits_allocated": (16,),
    "bits_stored": range(1, 17),
    "pixel_representation": (0, 1),
    "samples_per_pixel": (1,),
    "photometric_interpretation": ("MONOCHROME1", "MONOCHROME2"),
}


@dataclass(frozen=True)
class PixelLocation:
    """Where the pixel data of an instance starts, and how to read them.

    Attributes
    ----------
    transfer_syntax_uid : str
        How they are encoded.
    offset : int
        Byte in the file where the value of Pixel Data (7FE0,0010) starts.
    options : dict
        The Image Pixel module as the keyword arguments of pydicom's decoders.
    """

    transfer_syntax_uid: str
    offset: int
    options: dict[str, Any]

    @property
    def is_plain(self) -> bool:
        """Whether the pixels stand in the file as in memory, as those of most CT images do."""
        return self.transfer_syntax_uid in _PLAIN_SYNTAXES and all(
            self.options[name] in values for name, values in _PLAIN_OPTIONS.items()
        )


def locate_pixels(source: Source) -> PixelLocation:
    """Find the pixel data of an instance without reading them.

    Parameters
    ----------
    source : Source
        The file.

    Returns
    -------
    PixelLocation
        For any number of calls of `decode_frame`.

    Raises
    ------
    ValueError
        If there is no Pixel Data element or the Image Pixel module is incomplete.
    HeaderError, OSError
        If the file cannot be read that far.
    """
    header = read_header(source, _WANTED, _PIXEL_DATA - 1)
    if header.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        return PixelLocation(header.transfer_syntax_uid, 0, {})
    start = header.following
    tag = b"\x7f\xe0\x00\x10" if header.is_big_endian else b"\xe0\x7f\x10\x00"
    if start[:4] != tag:
        raise ValueError("it holds no pixel data")
    # Judged by the element itself: some files that claim explicit VR are written without.
    explicit = start[4:6] in (b"OW", b"OB")
    options = _decoder_options(header)
    options["pixel_vr"] = start[4:6].decode() if explicit else "OW"
    return PixelLocation(header.transfer_syntax_uid, header.end + (12 if explicit else 8), options)


def _decoder_options(header: Header) -> dict[str, Any]:
    required = {
        "rows": header.unsigned(_ROWS),
        "columns": header.unsigned(_COLUMNS),
        "bits_allocated": header.unsigned(_BITS_ALLOCATED),
        "bits_stored": header.unsigned(_BITS_STORED),
        "pixel_representation": header.unsigned(_PIXEL_REPRESENTATION),
    }
    missing = [name for name, value in required.items() if value is None]
    if missing:
        raise ValueError(f"its header lacks {', '.join(missing)}")
    options: dict[str, Any] = dict(
        required,
        samples_per_pixel=header.unsigned(_SAMPLES_PER_PIXEL) or 1,
        photometric_interpretation=header.text(_PHOTOMETRIC_INTERPRETATION) or "MONOCHROME2",
        number_of_frames=int(header.text(_NUMBER_OF_FRAMES) or 1),
        pixel_keyword="PixelData",
    )
    if _EXTENDED_OFFSETS in header.elements and _EXTENDED_LENGTHS in header.elements:
        options["extended_offsets"] = (
            header.elements[_EXTENDED_OFFSETS],
            header.elements[_EXTENDED_LENGTHS],
        )
    return options


def decode_frame(source: Source, location: PixelLocation, index: int) -> np.ndarray:
    """Decode one frame.

    Of an uncompressed file only the bytes of the frame are read.

    Parameters
    ----------
    source : Source
        The file.
    location : PixelLocation
        From `locate_pixels`.
    index : int
        0-based number of the frame.

    Returns
    -------
    numpy.ndarray
        Stored values, shape (rows, columns), the narrowest integer type that holds Bits
        Allocated; bits beyond Bits Stored are cleared or carry the sign (PS3.5 8.1.1).

    Raises
    ------
    Exception
        Whatever pydicom or a decoder raises for truncated or broken pixel data.
    """
    with source.open() as file:
        if location.is_plain:
            return _read_plain(file, location, index)
        if location.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
            return pixel_array(dcmread(file), index=index, raw=True)
        decoder = get_decoder(location.transfer_syntax_uid)
        plugin = _FASTEST_PLUGIN.get(decoder.UID, "")
        file.seek(location.offset)
        array, _ = decoder.as_array(
            file,
            index=index,
            raw=True,
            decoding_plugin=plugin if plugin in decoder.available_plugins else "",
            **location.options,
        )
        return array


def _read_plain(file: BinaryIO, location: PixelLocation, index: int) -> np.ndarray:
    """Read a frame that needs no decoding straight into its array (PS3.5 8.1.1, A.1, A.2)."""
    options = location.options
    if index >= options["number_of_frames"]:
        raise ValueError(f"it has {options['number_of_frames']} frames and no frame {index + 1}")
    kind = "<i2" if options["pixel_representation"] else "<u2"
    pixels = np.empty((options["rows"], options["columns"]), kind)
    file.seek(location.offset + index * pixels.nbytes)
    n_read = file.readinto(pixels.data.cast("B"))  # type: ignore[attr-defined]
    if n_read != pixels.nbytes:
        raise ValueError(f"it ends after {n_read} of {pixels.nbytes} bytes of frame {index + 1}")
    unused = options["bits_allocated"] - options["bits_stored"]
    if unused:
        np.left_shift(pixels, unused, out=pixels)
        np.right_shift(pixels, unused, out=pixels)
    return pixels
