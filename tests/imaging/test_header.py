"""The fast header reader against pydicom, in everything a file can be written as."""

from io import BytesIO

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from oncofm.imaging.header import HeaderError, NotDicomError, read_header

WANTED = frozenset((0x00080018, 0x00080060, 0x0020000E, 0x00200032, 0x00280010, 0x00281053))
LAST_TAG = 0x0028FFFF
SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)


class Bytes:
    """A source in memory that knows how much of it was read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.name = "memory"
        self.n_read = 0

    def open(self):
        source = self

        class Counting(BytesIO):
            def read(self, size=-1):
                part = super().read(size)
                source.n_read += len(part)
                return part

        return Counting(self.data)


def nested(depth: int, undefined: bool) -> Sequence:
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3"
    item.add_new(0x00091001, "UN", b"private " * 20)
    if depth:
        item.SourceImageSequence = nested(depth - 1, undefined)
        item["SourceImageSequence"].is_undefined_length = undefined
    item.is_undefined_length_sequence_item = undefined
    return Sequence([item, Dataset()])


def dataset(undefined: bool = True, private_bytes: int = 0) -> Dataset:
    made = Dataset()
    made.SOPInstanceUID = "1.2.826.0.1.3680043.1"
    made.Modality = "CT"
    made.ReferencedImageSequence = nested(3, undefined)
    made["ReferencedImageSequence"].is_undefined_length = undefined
    made.PatientName = "Somebody"
    if private_bytes:
        made.add_new(0x00190010, "LO", "VENDOR")
        made.add_new(0x00191001, "OB", b"\0" * private_bytes)
    made.SeriesInstanceUID = "1.2.826.0.1.3680043.22"
    made.ImagePositionPatient = ["-1.5", "2.25", "1e2"]
    made.Rows, made.Columns, made.BitsAllocated = 4, 4, 16
    made.RescaleSlope = "2"
    made.PixelData = b"\1\2" * 16
    made["PixelData"].VR = "OW"
    return made


def encode(made: Dataset, syntax: str, preamble: bool = True) -> bytes:
    file = BytesIO()
    if preamble:
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = syntax
        made.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    pydicom.dcmwrite(
        file,
        made,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        enforce_file_format=preamble,
    )
    return file.getvalue()


def check(header, syntax: str) -> None:
    assert header.transfer_syntax_uid == syntax
    assert header.text(0x00080018) == "1.2.826.0.1.3680043.1"
    assert header.text(0x00080060) == "CT"
    assert header.text(0x0020000E) == "1.2.826.0.1.3680043.22"
    assert header.text(0x00200032) == "-1.5\\2.25\\1e2"
    assert header.unsigned(0x00280010) == 4
    assert header.text(0x00281053) == "2"
    assert 0x00100010 not in header.elements
    assert header.text(0x00200052) == ""
    assert header.unsigned(0x00280011) is None


@pytest.mark.parametrize("private_bytes", [0, 40_000, 1_200_000])
@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_encoding_of_a_header(syntax, undefined, private_bytes):
    source = Bytes(encode(dataset(undefined, private_bytes), syntax))
    check(read_header(source, WANTED, LAST_TAG), syntax)


@pytest.mark.parametrize("syntax", SYNTAXES[:3])
def test_without_preamble_and_meta_information(syntax):
    source = Bytes(encode(dataset(), syntax, preamble=False))
    check(read_header(source, WANTED, LAST_TAG), syntax)


@pytest.mark.parametrize("syntax", SYNTAXES[:3])
def test_end_is_where_the_pixel_data_start(syntax):
    data = encode(dataset(), syntax)
    header = read_header(Bytes(data), WANTED, 0x7FE0000F)
    tag = b"\x7f\xe0\x00\x10" if syntax == ExplicitVRBigEndian else b"\xe0\x7f\x10\x00"
    assert data[header.end : header.end + 4] == tag
    assert header.following == data[header.end : header.end + 12]


@pytest.mark.parametrize("left", [0, 5, 12])
def test_the_next_element_may_lie_across_the_end_of_what_is_read_first(left):
    short = encode(dataset(private_bytes=2), ExplicitVRLittleEndian)
    end = read_header(Bytes(short), WANTED, 0x7FE0000F).end
    n_bytes = 2 + 32 * 1024 - end - left
    data = encode(dataset(private_bytes=n_bytes + n_bytes % 2), ExplicitVRLittleEndian)
    header = read_header(Bytes(data), WANTED, 0x7FE0000F)
    assert header.following == data[header.end : header.end + 12]
    assert len(header.following) == 12


def test_pixel_data_are_not_read():
    made = dataset()
    made.PixelData = b"\0" * 5_000_000
    source = Bytes(encode(made, ExplicitVRLittleEndian))
    read_header(source, WANTED, LAST_TAG)
    assert source.n_read <= 32 * 1024


def test_an_unknown_sequence_of_undefined_length_has_implicit_items():
    inner = BytesIO()
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3"
    pydicom.dcmwrite(inner, item, implicit_vr=True, little_endian=True)
    item_bytes = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + inner.getvalue()
    item_bytes += b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    data = encode(dataset(), ExplicitVRLittleEndian)
    before_series = data.index(b"\x20\x00\x0e\x00UI")
    element = b"\x19\x00\x01\x10UN\0\0\xff\xff\xff\xff" + item_bytes
    source = Bytes(data[:before_series] + element + data[before_series:])
    check(read_header(source, WANTED, LAST_TAG), ExplicitVRLittleEndian)


def test_an_unknown_value_representation_is_left_to_pydicom():
    data = encode(dataset(), ExplicitVRLittleEndian)
    before_series = data.index(b"\x20\x00\x0e\x00UI")
    odd = b"\x19\x00\x01\x10ZZ\x04\x00abcd"
    source = Bytes(data[:before_series] + odd + data[before_series:])
    check(read_header(source, WANTED, LAST_TAG), ExplicitVRLittleEndian)


@pytest.mark.filterwarnings("ignore:Expected explicit VR")
def test_implicit_elements_in_a_file_that_says_explicit():
    plain = encode(dataset(), ImplicitVRLittleEndian)
    lie = ExplicitVRLittleEndian.encode() + b"\0"
    truth = ImplicitVRLittleEndian.encode() + b"\0"
    start = plain.index(truth)
    length = len(truth) - len(truth) % 2
    meta_length = int.from_bytes(plain[140:144], "little") + len(lie) + len(lie) % 2 - length
    data = plain[:140] + meta_length.to_bytes(4, "little") + plain[144 : start - 2]
    data += (len(lie) + len(lie) % 2).to_bytes(2, "little") + lie.ljust(len(lie) + len(lie) % 2)
    data += plain[start + length :]
    header = read_header(Bytes(data), WANTED, LAST_TAG)
    assert header.text(0x0020000E) == "1.2.826.0.1.3680043.22"
    assert header.text(0x00200032) == "-1.5\\2.25\\1e2"


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_header_that_breaks_off(syntax):
    data = encode(dataset(), syntax)
    with pytest.raises(HeaderError):
        read_header(Bytes(data[:400]), WANTED, LAST_TAG)


@pytest.mark.parametrize(
    "data", [b"", b"x", b"hello " * 100, b"\0" * 500, b"\x08\x00\x05\x00 is not DICOM" * 9]
)
def test_what_is_no_dicom(data):
    with pytest.raises(NotDicomError):
        read_header(Bytes(data), WANTED, LAST_TAG)
