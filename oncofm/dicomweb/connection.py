"""One request by HTTP, and what can go wrong with it, in time."""

import http.client
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from oncofm.dicomweb.address import printable
from oncofm.errors import WebAnswerError, WebRefusedError, WebUnavailableError

_BLOCK_BYTES = 1 << 18
_PASSING = frozenset((408, 425, 429))
_MEANING = {
    401: "the token is missing or wrong; name a file with a good one",
    403: "the token does not allow it; ask for access",
    404: "there is no such thing; correct the address or the UID",
    406: "it cannot give DICOM as stored; use another server",
}


class Answer:
    """An answer that was begun; its body is read once.

    Parameters
    ----------
    url : str
        Whose it is, for messages.
    response : http.client.HTTPResponse
        Status and headers have been read.
    deadline : _Deadline
        Ends it.
    """

    def __init__(self, url: str, response: http.client.HTTPResponse, deadline: "_Deadline") -> None:
        self.url = url
        self.status = response.status
        self.media_type = response.headers.get("Content-Type", "")
        self._response = response
        self._deadline = deadline

    def blocks(self) -> Iterator[bytes]:
        """Yield the body, piece by piece.

        Raises
        ------
        WebUnavailableError
            If it ends too early, or takes too long.
        """
        while block := self._read():
            yield block
        if self._deadline.has_passed or self._response.length:
            raise _broken(self.url, self._deadline)

    def _read(self) -> bytes:
        try:
            return self._response.read(_BLOCK_BYTES)
        except (http.client.HTTPException, OSError, ValueError) as error:
            raise _broken(self.url, self._deadline) from error


@contextmanager
def get(
    url: str,
    headers: Mapping[str, str],
    tls: ssl.SSLContext | None,
    timeout_s: float,
    time_limit_s: float,
) -> Iterator[Answer]:
    """Ask for something.

    Parameters
    ----------
    url : str
        Of http or https. It is not followed anywhere else.
    headers : mapping of str to str
        Of the request.
    tls : ssl.SSLContext or None
        Whom to trust, where it is https.
    timeout_s : float
        So long the server may be silent.
    time_limit_s : float
        So long everything may take, until the context is left.

    Yields
    ------
    Answer
        A good one (2xx).

    Raises
    ------
    WebUnavailableError
        If it may work later.
    WebRefusedError
        If not.
    WebAnswerError
        If the answer is not of HTTP.
    """
    said = printable(url)
    with _deadline(time_limit_s) as deadline:
        response = _open(url, said, headers, tls, timeout_s, deadline)
        with response:
            yield Answer(said, response, deadline)


def _open(
    url: str,
    said: str,
    headers: Mapping[str, str],
    tls: ssl.SSLContext | None,
    timeout_s: float,
    deadline: "_Deadline",
) -> http.client.HTTPResponse:
    opener = urllib.request.build_opener(_Http(deadline), _Https(deadline, tls), _StayHere())
    try:
        return opener.open(urllib.request.Request(url, headers=dict(headers)), timeout=timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(said, error.code, error.headers) from error
    except (http.client.HTTPException, OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if deadline.has_passed:
            raise _broken(said, deadline) from error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise WebRefusedError(
                f"The certificate of {said} is not trusted; name the file of its authority."
            ) from error
        if isinstance(reason, http.client.HTTPException | ValueError) and not isinstance(
            reason, OSError
        ):
            raise WebAnswerError(f"{said} does not speak HTTP; correct the address.") from error
        raise WebUnavailableError(
            f"{said} does not answer ({_reason(reason)}); start the server, or mend the network."
        ) from error


def _refusal(said: str, code: int, headers: Any) -> WebUnavailableError | WebRefusedError:
    if code >= 500 or code in _PASSING:
        pause = str(headers.get("Retry-After", "")) if headers is not None else ""
        return WebUnavailableError(
            f"{said} cannot answer now (HTTP {code}); try again later.",
            float(pause) if pause.isascii() and pause.isdigit() and len(pause) < 9 else 0.0,
        )
    if 300 <= code < 400:
        meaning = "it sends elsewhere; use the address that it names"
    else:
        meaning = _MEANING.get(code, "correct the address or the UID")
    return WebRefusedError(f"{said} refuses (HTTP {code}): {meaning}.")


def _broken(said: str, deadline: "_Deadline") -> WebUnavailableError:
    if deadline.has_passed:
        return WebUnavailableError(
            f"{said} took longer than {deadline.seconds:g} s; mend the network, or the server."
        )
    return WebUnavailableError(
        f"The answer of {said} ended in the middle; mend the network, or the server."
    )


def _reason(error: object) -> str:
    """Say in few words what a library says; its own text may hold anything."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ssl.SSLError):
        return error.strerror
    return type(error).__name__


def trust(ca: Path | None) -> ssl.SSLContext:
    """Trust whom the system trusts, or else one file.

    Raises
    ------
    WebRefusedError
        If the file cannot be used.
    """
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise WebRefusedError(
            f"{ca} is no file of certificates ({error.strerror or type(error).__name__}); name one "
            "in PEM format."
        ) from error


# --- in time ------------------------------------------------------------------------------


class _Deadline:
    """Closes connections when the time is up, whatever they are waiting for."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.has_passed = False
        self._sockets: list[socket.socket] = []

    def watch(self, connection: socket.socket) -> None:
        self._sockets.append(connection)
        if self.has_passed:
            self.hang_up()

    def hang_up(self) -> None:
        self.has_passed = True
        for connection in self._sockets:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def _deadline(seconds: float) -> Iterator[_Deadline]:
    deadline = _Deadline(seconds)
    timer = threading.Timer(seconds, deadline.hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield deadline
    finally:
        timer.cancel()


class _Http(urllib.request.HTTPHandler):
    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_watched(http.client.HTTPConnection, self._deadline), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, deadline: _Deadline, tls: ssl.SSLContext | None) -> None:
        super().__init__(context=tls)
        self._deadline, self._tls = deadline, tls

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        connection = _watched(http.client.HTTPSConnection, self._deadline)
        return self.do_open(connection, req, context=self._tls)


class _StayHere(urllib.request.HTTPRedirectHandler):
    """A token goes to the server that it is for, and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _watched(kind: Any, deadline: _Deadline) -> Any:
    class Watched(kind):
        def connect(self) -> None:
            super().connect()
            deadline.watch(self.sock)

    return Watched
