"""A DICOMweb server: who we are to it, what we take from it, and how patient we are."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import oncofm
from oncofm.dicomweb.address import parse_service
from oncofm.dicomweb.connection import Answer, get, trust
from oncofm.errors import WebAnswerError, WebRefusedError, WebUnavailableError

_PAGE = 500
_LONGEST_PAUSE_S = 60.0
_LONGEST_TEXT = 1024
_JSON = "application/dicom+json, application/json"
_AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
"""PS3.18 8.7.3.5.2: in whatever transfer syntax the server has it."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Limits:
    """What is taken from a server at most.

    Attributes
    ----------
    instance_bytes : int
        Of an instance, as sent and inflated.
    series_bytes : int
        Of a series.
    n_results : int
        Of a search.
    page_bytes : int
        Of one answer to a search.
    timeout_s : float
        So long it may be silent.
    request_s : float
        So long a request may take.
    attempts : int
        So often something is tried that may work later.
    backoff_s : float
        Pause before the second attempt; twice that before the third, and so on.
    """

    instance_bytes: int = 2 << 30
    series_bytes: int = 16 << 30
    n_results: int = 50_000
    page_bytes: int = 16 << 20
    timeout_s: float = 30.0
    request_s: float = 3600.0
    attempts: int = 5
    backoff_s: float = 1.0


class Server:
    """A DICOMweb service.

    Parameters
    ----------
    url : str
        Its address, without a slash at the end.
    token_file : pathlib.Path or None
        Holds a bearer token.
    ca : pathlib.Path or None
        PEM of who signs its certificate, if not one that the system knows.
    limits : Limits
        What is taken from it.
    pause : callable
        Waits so many seconds between attempts.

    Raises
    ------
    WebAddressError
        If the address is none.
    WebRefusedError
        If the token or the certificates cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        token_file: Path | None = None,
        ca: Path | None = None,
        limits: Limits | None = None,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self.url = parse_service(url)
        self.limits = limits or Limits()
        is_secure = self.url.lower().startswith("https:")
        self._tls = trust(ca) if is_secure else None
        self._pause = pause
        self._headers = {"User-Agent": f"oncofm/{oncofm.__version__}"}
        if token_file is not None:
            self._headers["Authorization"] = f"Bearer {read_token(token_file)}"

    def search(
        self, path: str, query: Mapping[str, str], tags: Sequence[str]
    ) -> dict[str, dict[str, str]]:
        """Ask for all that the server knows of a kind (PS3.18 10.6), page by page.

        Parameters
        ----------
        path : str
            Below the service, for example ``/studies``.
        query : mapping of str to str
            Attributes that must fit.
        tags : sequence of str
            What is wanted of each, as eight digits; first the UID that tells one from another.

        Returns
        -------
        dict of str to dict
            By UID, the first value of each tag as text; empty where there is none.

        Raises
        ------
        WebError
            If it cannot be had.
        """
        found: dict[str, dict[str, str]] = {}
        offset = 0
        fields = [("includefield", tag) for tag in tags[1:]]
        while True:
            page = [("limit", str(_PAGE)), ("offset", str(offset))]
            text = urlencode([*query.items(), *fields, *page])
            items = self.patiently(lambda text=text: self._page(path, text))
            # Nothing else is kept: names of patients, for example.
            values = [{tag: _first(item, tag) for tag in tags} for item in items]
            new = {one[tags[0]]: one for one in values}
            # A server that knows no pages sends the first one again and again.
            if new.keys() <= found.keys():
                return found
            found |= new
            offset += len(items)
            if len(found) > self.limits.n_results:
                raise WebAnswerError(
                    f"{self.url}{path} finds more than {self.limits.n_results}; ask for less."
                )

    def _page(self, path: str, query: str) -> list[dict]:
        with self._get(f"{path}?{query}", _JSON) as answer:
            data = bytearray()
            for block in answer.blocks():
                data += block
                if len(data) > self.limits.page_bytes:
                    raise WebAnswerError(f"{answer.url} answers without end; use another server.")
            if not data.strip():
                return []
            try:
                items = json.loads(data)
            except (ValueError, RecursionError):
                items = None
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise WebAnswerError(
                    f"{answer.url} answers with something else than DICOM JSON; correct the "
                    "address."
                )
            return items

    @contextmanager
    def retrieve(self, path: str) -> Iterator[Answer]:
        """Ask once for something, as it is stored (PS3.18 10.4).

        Raises
        ------
        WebError
            If it cannot be had.
        """
        with self._get(path, _AS_STORED) as answer:
            yield answer

    def _get(self, path: str, accept: str) -> AbstractContextManager[Answer]:
        limits = self.limits
        headers = {**self._headers, "Accept": accept}
        return get(self.url + path, headers, self._tls, limits.timeout_s, limits.request_s)

    def patiently(self, do: Callable[[], Result]) -> Result:
        """Do something again, after a while, as long as it may work.

        Raises
        ------
        WebUnavailableError
            If it did not work so often.
        """
        n_failures = 0
        while True:
            try:
                return do()
            except WebUnavailableError as error:
                n_failures += 1
                self.wait_after(error, n_failures)

    def wait_after(self, error: WebUnavailableError, n_failures: int) -> None:
        """Wait before the next attempt, or raise the error if there were enough."""
        if n_failures >= self.limits.attempts:
            raise error
        # The exponent is bounded as the number must be.
        pause_s = self.limits.backoff_s * 2 ** min(n_failures - 1, 30)
        self._pause(min(max(pause_s, error.retry_after_s), _LONGEST_PAUSE_S))


def _first(item: Mapping[str, Any], tag: str) -> str:
    """Return the first value of an element in DICOM JSON (PS3.18 F.2), which may be anything."""
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    value = values[0] if isinstance(values, list) and values else None
    return str(value)[:_LONGEST_TEXT].strip(" \0") if isinstance(value, str | int) else ""


def read_token(path: Path) -> str:
    """Read a bearer token.

    Raises
    ------
    WebRefusedError
        If the file cannot be read, or holds none.
    """
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise WebRefusedError(f"The token cannot be read ({reason}); mend {path}.") from error
    if not (token.isascii() and token.isprintable() and token):
        raise WebRefusedError(f"{path} holds no token; write one line into it.")
    return token
