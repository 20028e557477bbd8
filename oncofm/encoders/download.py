"""Download one large file: resumable, atomic, with nothing but the standard library.

Proxies and certificates are urllib's: ``HTTPS_PROXY``, ``NO_PROXY``, ``SSL_CERT_FILE``.
"""

import contextlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import oncofm
from oncofm.errors import DownloadError, OutputNotWritableError

_ATTEMPTS = 5
"""Attempts in a row that may fail without a byte; one that got further starts the count anew."""
_PAUSE_S = 1.0
"""Pause before the second attempt; it doubles with each."""
_TIMEOUT_S = 30.0
_CHUNK = 2**20
_WORTH_ANOTHER_TRY = frozenset({408, 425, 429, 500, 502, 503, 504})

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes there will be, where that is known."""


class _InterruptedTransferError(Exception):
    """The connection ended early or the server asked to come back."""


@dataclass(frozen=True)
class _Origin:
    """What tells one version of a remote file from the next."""

    url: str
    etag: str | None
    last_modified: str | None
    size: int | None


def download(url: str, target: Path, verify: Callable[[Path], object], progress: Progress) -> None:
    """Bring a file here, or the rest of it.

    The bytes gather in ``<target>.part``, with their origin noted in ``<target>.part.json``. A
    later call goes on where an earlier one stopped, unless the remote file has changed. The file
    gets its name only when it is complete and verified.

    Parameters
    ----------
    url : str
        http or https.
    target : pathlib.Path
        Where the file goes; its folder is made.
    verify : callable
        Gets the complete ``.part`` file and raises if it is not what was asked for; then that
        file is removed.
    progress : callable
        See `Progress`.

    Raises
    ------
    DownloadError
        If the server refuses or cannot be reached, or another process downloads the same.
    OutputNotWritableError
        If the file cannot be written.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise DownloadError(f"{url} is no http or https address; give one with --url.")
    part = target.with_name(target.name + ".part")
    note = target.with_name(target.name + ".part.json")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as stream:
            _lock(stream, part)
            _transfer_all(url, stream, note, progress)
            stream.flush()
            os.fsync(stream.fileno())
            try:
                verify(part)
            except Exception:
                part.unlink()
                note.unlink(missing_ok=True)
                raise
            part.replace(target)
            note.unlink(missing_ok=True)
    except OSError as error:
        raise OutputNotWritableError(
            f"{target} cannot be written ({error.strerror or error}); choose another folder with "
            f"--to or make room."
        ) from error


def _lock(stream: BinaryIO, part: Path) -> None:
    """Two processes that append to one file would make a mess of it."""
    with contextlib.suppress(ImportError):  # not on Windows
        import fcntl

        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DownloadError(
                f"{part} is being downloaded by another process; wait until it is done."
            ) from error


def _transfer_all(url: str, stream: BinaryIO, note: Path, progress: Progress) -> None:
    failures, reached = 0, -1
    while True:
        try:
            _transfer(url, stream, note, progress)
            return
        except _InterruptedTransferError as error:
            here = stream.seek(0, os.SEEK_END)
            failures = 1 if here > reached else failures + 1
            reached = max(reached, here)
            if failures == _ATTEMPTS:
                raise DownloadError(
                    f"{url} could not be downloaded ({error}); {here} bytes are kept, run the "
                    f"command again to go on from there."
                ) from error
            time.sleep(_PAUSE_S * 2 ** (failures - 1))


def _transfer(url: str, stream: BinaryIO, note: Path, progress: Progress) -> None:
    """One request: the whole file, or what is missing of it."""
    here = stream.seek(0, os.SEEK_END)
    known = _read_note(note)
    resumable = here > 0 and known is not None and known.url == url
    if resumable and known is not None and here == known.size:
        return
    headers = {"User-Agent": f"oncofm/{oncofm.__version__}", "Accept-Encoding": "identity"}
    if resumable:
        headers["Range"] = f"bytes={here}-"
    with _open(urllib.request.Request(url, headers=headers), stream) as response:
        origin = _origin_of(url, response)
        if response.status == http.HTTPStatus.PARTIAL_CONTENT:
            if origin != known or _first_byte(response) != here:
                stream.truncate(0)
                raise _InterruptedTransferError("the remote file has changed")
        else:
            stream.truncate(0)
            here = 0
            note.write_text(json.dumps(asdict(origin)), encoding="utf-8")
        progress(here, origin.size)
        while block := _read(response):
            stream.write(block)
            here += len(block)
            progress(here, origin.size)
    if origin.size is not None and here != origin.size:
        raise _InterruptedTransferError(f"the connection ended after {here} of {origin.size} bytes")


def _open(request: urllib.request.Request, stream: BinaryIO) -> http.client.HTTPResponse:
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        sentence = f"HTTP status {error.code} {error.reason}"
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            stream.truncate(0)
            raise _InterruptedTransferError(sentence) from error
        if error.code in _WORTH_ANOTHER_TRY:
            raise _InterruptedTransferError(sentence) from error
        raise DownloadError(
            f"{request.full_url} cannot be downloaded ({sentence}); check the address."
        ) from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _InterruptedTransferError(str(reason)) from error


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK)
    except (http.client.HTTPException, OSError) as error:
        raise _InterruptedTransferError(str(error)) from error


def _origin_of(url: str, response: http.client.HTTPResponse) -> _Origin:
    """Size of the whole file, from ``Content-Range: bytes 7-99/100`` or ``Content-Length``."""
    size = response.headers.get("Content-Length")
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        size = response.headers.get("Content-Range", "").rpartition("/")[2]
    return _Origin(
        url,
        response.headers.get("ETag"),
        response.headers.get("Last-Modified"),
        int(size) if size and size.isdecimal() else None,
    )


def _first_byte(response: http.client.HTTPResponse) -> int | None:
    start = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(start) if start.isdecimal() else None


def _read_note(note: Path) -> _Origin | None:
    try:
        return _Origin(**json.loads(note.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
