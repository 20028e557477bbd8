"""Messages of several parts, cut into pieces anywhere."""

import pytest

from oncofm.dicomweb.multipart import read_parts
from oncofm.errors import WebUnavailableError

PARTS = [
    b"",
    b"\r\n",
    b"one",
    b"--b--\r\n--",
    b"\r\n-\r\n--\r\n--B",
    bytes(range(256)) * 3,
    b"ends as a delimiter begins\r\n--",
]
MESSAGE = (
    b"a preamble\r\n"
    + b"".join(
        b"--b\r\nContent-Type: application/dicom\r\nX: y\r\n\r\n" + p + b"\r\n" for p in PARTS
    )
    + b"--b--\r\nan epilogue"
)


class Pieces:
    """An answer in pieces of one size."""

    url = "https://host/x"

    def __init__(self, data: bytes, size: int, media_type="Multipart/Related; Boundary=b"):
        self.media_type = media_type
        self._pieces = [data[start : start + size] for start in range(0, len(data), size)]

    def blocks(self):
        yield from self._pieces


def read_all(answer: Pieces) -> list[bytes]:
    return [b"".join(body) for body in read_parts(answer)]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 10_000])
def test_pieces(size):
    assert read_all(Pieces(MESSAGE, size)) == PARTS


def test_what_is_left_is_passed_over():
    first = [next(body, b"") for body in read_parts(Pieces(MESSAGE, 50))]
    assert all(part.startswith(piece) for part, piece in zip(PARTS, first, strict=True))


def test_cut_anywhere():
    end = MESSAGE.index(b"--b--\r\nan") + 5
    for length in range(0, end, 3):
        with pytest.raises(WebUnavailableError, match="ended in the middle"):
            read_all(Pieces(MESSAGE[:length], 100))


@pytest.mark.parametrize(
    "media_type",
    [
        'multipart/related; type="application/dicom"; boundary="b"',
        "multipart/related;boundary=b;type=application/dicom",
        'multipart/related; start="x;boundary=c"; boundary=b',
    ],
)
def test_ways_to_write_a_boundary(media_type):
    assert read_all(Pieces(MESSAGE, 100, media_type)) == PARTS
