"""The first elements of a DICOM file, fast: what a scan over thousands of headers needs.

A general reader builds objects for a hundred elements of which a scan wants twenty. This one
walks over the bytes (PS3.5 7.1, PS3.10 7.1), notes the wanted values and stops before anything
large. Files it does not understand go to pydicom, which knows more of what real scanners write.
"""

import struct
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from io import BytesIO
from typing import Literal, cast

from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from oncofm.imaging.sources import Source

_FIRST_READ_BYTES = 32 * 1024
"""Holds the header of most images; one that needs more is read again."""
_SECOND_READ_BYTES = 1024 * 1024
_PREAMBLE_BYTES = 128
_ELEMENT_START_BYTES = 12
"""Tag, VR and length of any element."""
_TRANSFER_SYNTAX = 0x00020010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED_LENGTH = 0xFFFFFFFF
_LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV"))
_LONG_VRS |= frozenset((b"UC", b"UN", b"UR", b"UT", b"UV"))
_SHORT_VRS = frozenset((b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS"))
_SHORT_VRS |= frozenset((b"LO", b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL"))
_SHORT_VRS |= frozenset((b"US",))


class NotDicomError(Exception):
    """The bytes do not look like DICOM at all."""


class HeaderError(Exception):
    """The bytes look like DICOM, but the header cannot be read to its end."""


class _MoreBytesNeeded(Exception):
    """A request, not an error: the header goes on behind the bytes at hand."""


class _Irregular(Exception):
    """The bytes are not laid out as the standard says; the other reader may cope."""


@dataclass(frozen=True)
class Header:
    """The wanted elements of one file.

    Attributes
    ----------
    transfer_syntax_uid : str
        From the file meta information, or what the first element looks like without it.
    elements : dict
        Tag as an integer -> value as it stands in the file.
    end : int
        Where the first element lies that was not looked at, in bytes from the start of the
        file; without meaning in a deflated file.
    following : bytes
        How that element begins: 12 bytes, fewer only where the file ends.
    """

    transfer_syntax_uid: str
    elements: dict[int, bytes]
    end: int
    following: bytes = b""

    @property
    def is_big_endian(self) -> bool:
        """Whether numbers are stored with the highest byte first."""
        return self.transfer_syntax_uid == ExplicitVRBigEndian

    def text(self, tag: int) -> str:
        """Return a value as text without padding; empty if absent."""
        return text_of(self.elements.get(tag, b""))

    def unsigned(self, tag: int) -> int | None:
        """Return the number of a US element, None if absent."""
        order = "big" if self.is_big_endian else "little"
        return unsigned_of(self.elements.get(tag, b""), order)


def text_of(value: bytes) -> str:
    """Read a value as text without padding."""
    return value.decode("latin-1").strip(" \0")


def unsigned_of(value: bytes, order: Literal["big", "little"]) -> int | None:
    """Read the number of a US element, None if it is empty."""
    return int.from_bytes(value[:2], order) if len(value) >= 2 else None


def read_header(source: Source, wanted: Collection[int], last_tag: int) -> Header:
    """Read the wanted elements up to a tag.

    Parameters
    ----------
    source : Source
        The file.
    wanted : collection of int
        Tags to keep; group 0002 is kept anyway.
    last_tag : int
        Nothing behind this tag is looked at.

    Returns
    -------
    Header
        What was found; absent elements are no error.

    Raises
    ------
    NotDicomError
        If the file has neither the prefix ``DICM`` nor a first element that looks like one.
    HeaderError
        If the file ends inside the header, or it makes no sense to pydicom either.
    OSError
        If the file cannot be opened or read.
    """
    size = _FIRST_READ_BYTES
    with source.open() as file:
        data = b""
        for size in (_FIRST_READ_BYTES, _SECOND_READ_BYTES, -1):
            more = file.read(size)
            data += more
            complete = len(more) < size or size < 0
            start = _first_element(data)
            try:
                return _parse(data, start, complete, wanted, last_tag)
            except _MoreBytesNeeded:
                if not complete:
                    continue
                if start == 0:
                    raise NotDicomError from None
                raise HeaderError("the file ends inside the header") from None
            except (_Irregular, zlib.error, RecursionError):
                return _read_by_pydicom(data + file.read(), start, wanted, last_tag)
    raise AssertionError("the last read is complete")


def _first_element(data: bytes) -> int:
    if data[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == b"DICM":
        return _PREAMBLE_BYTES + 4
    # Without preamble a data set starts with group 0008 (or its file meta information), with an
    # even element number near the beginning of the group.
    if len(data) >= 8 and data[:4] in _PLAUSIBLE_STARTS and _plausible_length(data):
        return 0
    raise NotDicomError


_PLAUSIBLE_STARTS = frozenset(
    struct.pack(order + "HH", group, element)
    for order, group, elements in (
        ("<", 0x0002, (0x0000, 0x0001)),
        ("<", 0x0008, (0x0000, 0x0001, 0x0005, 0x0008, 0x0012, 0x0016, 0x0018)),
        (">", 0x0008, (0x0000, 0x0001, 0x0005, 0x0008, 0x0012, 0x0016, 0x0018)),
    )
    for element in elements
)
_LONGEST_FIRST_VALUE = 1024


def _plausible_length(data: bytes) -> bool:
    explicit = data[4:6] in _SHORT_VRS
    return explicit or struct.unpack_from("<I", data, 4)[0] <= _LONGEST_FIRST_VALUE


def _parse(
    data: bytes, start: int, complete: bool, wanted: Collection[int], last_tag: int
) -> Header:
    elements: dict[int, bytes] = {}
    position = start
    if data[start : start + 2] == b"\x02\x00":
        position = _walk(data, start, _EXPLICIT, 0x0002FFFF, None, elements)
    syntax = elements.get(_TRANSFER_SYNTAX, b"").decode("latin-1").strip(" \0")
    if syntax == DeflatedExplicitVRLittleEndian:
        data, position = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[position:]), 0
    syntax = syntax or _guess_syntax(data, position)
    encoding = _ENCODINGS.get(syntax, _EXPLICIT)
    position = _walk(data, position, encoding, last_tag, wanted, elements)
    following = data[position : position + _ELEMENT_START_BYTES]
    if len(following) < _ELEMENT_START_BYTES and not complete:
        raise _MoreBytesNeeded
    return Header(syntax, elements, position, following)


def _guess_syntax(data: bytes, position: int) -> str:
    if data[position : position + 2] == b"\x00\x08":
        return ExplicitVRBigEndian
    vr = data[position + 4 : position + 6]
    return ExplicitVRLittleEndian if vr in _SHORT_VRS | _LONG_VRS else ImplicitVRLittleEndian


class _Encoding:
    """How an element begins: byte order, and whether its VR is written out."""

    def __init__(self, byte_order: str, explicit: bool) -> None:
        self.explicit = explicit
        self.tag: Callable[..., tuple[int, int]] = struct.Struct(byte_order + "HH").unpack_from
        self.short: Callable[..., tuple[int]] = struct.Struct(byte_order + "H").unpack_from
        self.explicit_short: Callable[..., tuple[int, int, bytes, int]]
        self.explicit_short = struct.Struct(byte_order + "HH2sH").unpack_from
        self.long: Callable[..., tuple[int]] = struct.Struct(byte_order + "I").unpack_from


_IMPLICIT = _Encoding("<", False)
_EXPLICIT = _Encoding("<", True)
_ENCODINGS: dict[str, _Encoding] = {
    ImplicitVRLittleEndian: _IMPLICIT,
    ExplicitVRBigEndian: _Encoding(">", True),
}
"""Of the syntaxes whose elements do not begin as all others' do."""


def _walk(
    data: bytes,
    position: int,
    encoding: _Encoding,
    last_tag: int,
    wanted: Collection[int] | None,
    elements: dict[int, bytes],
) -> int:
    """Note the wanted elements (all of them for None) and return where `last_tag` is passed."""
    end = len(data)
    while position < end:
        if position + 8 > end:
            raise _MoreBytesNeeded
        # Most elements are of this kind, so they are taken apart without a call.
        group, element, vr, length = encoding.explicit_short(data, position)
        tag = group << 16 | element
        if tag > last_tag:
            return position
        if encoding.explicit and vr in _SHORT_VRS:
            value, inner = position + 8, encoding
        else:
            value, length, inner = _begin(data, position, encoding)
        if length == _UNDEFINED_LENGTH:
            position = _skip_items(data, value, inner)
            continue
        position = value + length
        if wanted is None or tag in wanted:
            if position > end:
                raise _MoreBytesNeeded
            elements[tag] = data[value:position]
    if position > end:
        raise _MoreBytesNeeded
    return position


def items_of(data: bytes, wanted: int, order: str, explicit: bool) -> list[bytes | None]:
    """Read one element of every item of a sequence (PS3.5 7.5).

    Parameters
    ----------
    data : bytes
        The value of the sequence.
    wanted : int
        Tag of the element.
    order : str
        ``<`` for little endian, ``>`` for big endian.
    explicit : bool
        Whether the VR of elements is written out.

    Returns
    -------
    list of bytes or None
        The value as it stands in each item; None in an item without it.

    Raises
    ------
    HeaderError
        If the items do not add up to the sequence.
    """
    encoding = _Encoding(order, explicit)
    found: list[bytes | None] = []
    position = 0
    try:
        while position < len(data):
            group, element = encoding.tag(data, position)
            if group << 16 | element != _ITEM:
                raise HeaderError("the sequence does not consist of items")
            length = encoding.long(data, position + 4)[0]
            position += 8
            elements: dict[int, bytes] = {}
            if length == _UNDEFINED_LENGTH:
                _walk(data, position, encoding, wanted, (wanted,), elements)
                position = _skip_item(data, position, encoding)
            else:
                item = data[position : position + length]
                _walk(item, 0, encoding, wanted, (wanted,), elements)
                position += length
            found.append(elements.get(wanted))
    except (_MoreBytesNeeded, _Irregular, struct.error, RecursionError):
        raise HeaderError("the items do not end where they should") from None
    if position != len(data):
        raise HeaderError("the last item does not end where it should")
    return found


def _begin(data: bytes, position: int, encoding: _Encoding) -> tuple[int, int, _Encoding]:
    """Where the value of an element starts, its length, and how items inside are encoded."""
    if not encoding.explicit:
        return position + 8, encoding.long(data, position + 4)[0], encoding
    vr = data[position + 4 : position + 6]
    if vr in _SHORT_VRS:
        return position + 8, encoding.short(data, position + 6)[0], encoding
    if vr not in _LONG_VRS:
        raise _Irregular
    if position + 12 > len(data):
        raise _MoreBytesNeeded
    # A sequence that a forwarding system did not know is UN with implicit items (PS3.5 6.2.2).
    inner = _IMPLICIT if vr == b"UN" else encoding
    return position + 12, encoding.long(data, position + 8)[0], inner


def _skip_items(data: bytes, position: int, encoding: _Encoding) -> int:
    """Find the end of a sequence of undefined length (PS3.5 7.5)."""
    while True:
        if position + 8 > len(data):
            raise _MoreBytesNeeded
        group, element = encoding.tag(data, position)
        tag, length = group << 16 | element, encoding.long(data, position + 4)[0]
        position += 8
        if tag == _SEQUENCE_END:
            return position
        if tag != _ITEM:
            raise _Irregular
        if length != _UNDEFINED_LENGTH:
            position += length
            continue
        position = _skip_item(data, position, encoding)


def _skip_item(data: bytes, position: int, encoding: _Encoding) -> int:
    while True:
        if position + 8 > len(data):
            raise _MoreBytesNeeded
        group, element = encoding.tag(data, position)
        if group << 16 | element == _ITEM_END:
            return position + 8
        value, length, inner = _begin(data, position, encoding)
        if length == _UNDEFINED_LENGTH:
            position = _skip_items(data, value, inner)
        else:
            position = value + length


def _read_by_pydicom(data: bytes, start: int, wanted: Collection[int], last_tag: int) -> Header:
    file = BytesIO(data)
    try:
        dataset = read_partial(
            file,
            stop_when=lambda tag, vr, length: tag > last_tag,
            force=start == 0,
            specific_tags=[BaseTag(tag) for tag in wanted],
        )
    except Exception as error:
        if start == 0:
            raise NotDicomError from error
        raise HeaderError(f"the header makes no sense ({type(error).__name__})") from error
    elements = {}
    for tag in wanted:
        if tag in dataset:
            raw = dataset.get_item(tag)
            value = cast(RawDataElement, raw).value
            elements[tag] = value if isinstance(value, bytes) else b""
    meta = getattr(dataset, "file_meta", {})
    elements |= {
        int(element.tag): str(element.value).encode("latin-1", "replace")
        for element in meta
        if element.VR == "UI"
    }
    implicit, little = dataset.original_encoding
    guess = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    guess = guess if little else ExplicitVRBigEndian
    end = file.tell()
    following = data[end : end + _ELEMENT_START_BYTES]
    return Header(str(meta.get("TransferSyntaxUID", guess)), elements, end, following)
