"""NUM items of Measurement Groups (PS3.3 C.18.1), encoded without building a tree of datasets.

A report may hold thousands of them, all of one form. Libraries take milliseconds for each.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sr.coding import Code
from pydicom.tag import Tag

from oncofm.results.sr_codes import INTENDED_USE

_SIGNIFICANT_DIGITS = 9
"""As many as a float32 has, and few enough for a Decimal String."""

_CODE_VALUE, _CODING_SCHEME, _CODE_MEANING = 0x00080100, 0x00080102, 0x00080104
_UNITS, _NUMERIC_VALUE = 0x004008EA, 0x0040A30A
_RELATIONSHIP, _VALUE_TYPE, _NAME = 0x0040A010, 0x0040A040, 0x0040A043
_CODE, _MEASURED_VALUE, _CONTENT = 0x0040A168, 0x0040A300, 0x0040A730
_ITEM = 0xFFFEE000


@dataclass(frozen=True)
class Column:
    """A kind of number in the groups.

    Attributes
    ----------
    name, unit : pydicom.sr.coding.Code
        Concept and UCUM unit.
    modifier : tuple of pydicom.sr.coding.Code or None
        Name and value of what tells it from others of the same concept.
    """

    name: Code
    unit: Code
    modifier: tuple[Code, Code] | None = None


def add_numbers(group: Dataset, numbers: Mapping[Column, float]) -> None:
    """Put numbers into a Measurement Group, in front of its coded answers.

    The content of the group is encoded: explicit VR, little endian, UTF-8.

    Parameters
    ----------
    group : pydicom.dataset.Dataset
        Container whose first answer is the intended use.
    numbers : mapping of Column to float
        In their order; finite.
    """
    items = list(group.ContentSequence)
    first_answer = next(
        index
        for index, item in enumerate(items)
        if item.ConceptNameCodeSequence[0].CodeValue == INTENDED_USE.value
    )
    content = b"".join(
        [
            *(_item(_encoded(item)) for item in items[:first_answer]),
            *(_item(_number(column, value)) for column, value in numbers.items()),
            *(_item(_encoded(item)) for item in items[first_answer:]),
        ]
    )
    tag = Tag(_CONTENT)
    group[tag] = RawDataElement(tag, "SQ", len(content), content, 0, False, True)
    _keep_encoded(group)


def keep_encoded(report: Dataset) -> None:
    """Let pydicom write the encoded groups of a report as they are; else it decodes them first."""
    _keep_encoded(report)
    _keep_encoded(report.ContentSequence[-1])


def _keep_encoded(dataset: Dataset) -> None:
    # An item without a character set of its own counts as one of the default set, wherever it is.
    name = dataset.get("SpecificCharacterSet")
    charset = convert_encodings(name) if name else default_encoding
    dataset.set_original_encoding(False, True, charset)


def _number(column: Column, value: float) -> bytes:
    modifier = b""
    if column.modifier is not None:
        name, target = column.modifier
        modifier = _sequence(
            _CONTENT,
            _text(_RELATIONSHIP, "CS", "HAS CONCEPT MOD")
            + _text(_VALUE_TYPE, "CS", "CODE")
            + _sequence(_NAME, _coded(name))
            + _sequence(_CODE, _coded(target)),
        )
    return (
        _text(_RELATIONSHIP, "CS", "CONTAINS")
        + _text(_VALUE_TYPE, "CS", "NUM")
        + _sequence(_NAME, _coded(column.name))
        + _sequence(
            _MEASURED_VALUE,
            _sequence(_UNITS, _coded(column.unit))
            + _text(_NUMERIC_VALUE, "DS", f"{value:.{_SIGNIFICANT_DIGITS}g}"),
        )
        + modifier
    )


def _coded(code: Code) -> bytes:
    return (
        _text(_CODE_VALUE, "SH", code.value)
        + _text(_CODING_SCHEME, "SH", code.scheme_designator)
        + _text(_CODE_MEANING, "LO", code.meaning)
    )


# --- PS3.5 sections 7.1.2 and 7.5 ----------------------------------------------------------


def _text(tag: int, vr: str, text: str) -> bytes:
    value = text.encode()
    value += b" " * (len(value) % 2)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def _sequence(tag: int, content: bytes) -> bytes:
    """Encode a sequence of one item."""
    item = _item(content)
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"SQ", 0, len(item)) + item


def _item(content: bytes) -> bytes:
    return struct.pack("<HHI", _ITEM >> 16, _ITEM & 0xFFFF, len(content)) + content


def _encoded(item: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, item, "utf8")
    return buffer.getvalue()
