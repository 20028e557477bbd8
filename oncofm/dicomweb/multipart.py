"""Messages of several parts (RFC 2046 5.1), read as they come: no part is ever in memory whole."""

from collections.abc import Iterator
from email.message import Message

from oncofm.dicomweb.connection import Answer
from oncofm.errors import WebAnswerError, WebUnavailableError

DICOM = "application/dicom"
_MAX_HEADER_BYTES = 16_384
_MAX_BOUNDARY = 70
_MAX_PREAMBLE_BYTES = 65_536

Body = Iterator[bytes]


def read_parts(answer: Answer) -> Iterator[Body]:
    """Take an answer apart.

    Parameters
    ----------
    answer : Answer
        ``multipart/related`` with parts of ``application/dicom``, or one such part by itself.

    Yields
    ------
    iterator of bytes
        The body of each part; what the caller leaves of it is passed over.

    Raises
    ------
    WebAnswerError
        If it is something else.
    WebUnavailableError
        If it ends before its end.
    """
    media_type, boundary = _media_type(answer.media_type)
    if media_type == DICOM:
        yield answer.blocks()
        return
    if media_type != "multipart/related" or not 0 < len(boundary) <= _MAX_BOUNDARY:
        raise WebAnswerError(
            f"{answer.url} answers with something else than DICOM; correct the address."
        )
    message = _Message(answer, b"\r\n--" + boundary.encode("latin-1", "replace"))
    for _ in message.until_delimiter(_MAX_PREAMBLE_BYTES):
        pass
    while message.has_part():
        body = message.until_delimiter()
        yield body
        for _ in body:
            pass


def _media_type(text: str) -> tuple[str, str]:
    """Media type and boundary, of which the former is ASCII in small letters."""
    header = Message()
    header["Content-Type"] = "".join(char for char in text if char.isprintable())
    return header.get_content_type(), str(header.get_param("boundary", ""))


class _Message:
    def __init__(self, answer: Answer, delimiter: bytes) -> None:
        self._url = answer.url
        self._blocks = answer.blocks()
        self._delimiter = delimiter
        self._data = b"\r\n"  # a delimiter may be the first thing in the message

    def until_delimiter(self, max_bytes: float = float("inf")) -> Body:
        """Yield what comes before the next delimiter, and pass over that."""
        n_bytes, keep = 0, len(self._delimiter) - 1
        while (end := self._data.find(self._delimiter)) < 0:
            # The beginning of a delimiter may stand at the end of what has come.
            ready, self._data = self._data[:-keep], self._data[-keep:]
            n_bytes += len(ready)
            if n_bytes > max_bytes:
                raise WebAnswerError(f"{self._url} answers with parts that are not marked as such.")
            if ready:
                yield ready
            self._more()
        ready, self._data = self._data[:end], self._data[end + len(self._delimiter) :]
        if ready:
            yield ready

    def has_part(self) -> bool:
        """Read the header of the next part; without one the message is over."""
        while len(self._data) < 2:
            self._more()
        if self._data.startswith(b"--"):
            return False
        while (end := self._data.find(b"\r\n\r\n")) < 0:
            if len(self._data) > _MAX_HEADER_BYTES:
                raise WebAnswerError(f"{self._url} answers with a part whose header has no end.")
            self._more()
        header, self._data = self._data[:end], self._data[end + 4 :]
        for line in header.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-type":
                media_type, _ = _media_type(value.decode("latin-1").strip())
                if media_type != DICOM:
                    raise WebAnswerError(
                        f"{self._url} answers with a part that is no DICOM; use another server."
                    )
        return True

    def _more(self) -> None:
        block = next(self._blocks, b"")
        if not block:
            raise WebUnavailableError(
                f"The answer of {self._url} ended in the middle; mend the network, or the server."
            )
        self._data += block
