"""Health, metrics and the status page of a node, on a port; UIDs and counts only."""

import ipaddress
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from oncofm.pacs import metrics
from oncofm.pacs.errors import NodeError
from oncofm.pacs.page import Process, content_policy, render_page
from oncofm.pacs.readable import iso
from oncofm.pacs.status import read_status

if TYPE_CHECKING:
    from oncofm.pacs.node import Node

_TEXT, _JSON, _HTML = (
    f"{kind}; charset=utf-8" for kind in ("text/plain", "application/json", "text/html")
)
_LOCAL = ("127.0.0.1", "localhost", "[::1]")
_PATHS = "there are /, /status.json, /healthz, /readyz and /metrics\n"


@dataclass(frozen=True)
class Answer:
    """An answer of HTTP."""

    status: int
    text: str
    content_type: str = _TEXT


_ELSEWHERE = Answer(421, "ask for this as 127.0.0.1 or localhost\n")


class Monitor:
    """Answers for a node."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._started_at = node.clock()

    def answer(self, path: str) -> Answer:
        """Answer for a path."""
        if path == "/healthz":
            return (
                Answer(200, "ok\n") if self._node.is_alive else Answer(503, "a thread has ended\n")
            )
        if path == "/readyz":
            return Answer(200, "ready\n") if self._node.is_ready else Answer(503, "not ready\n")
        if path == "/metrics":
            text = metrics.metrics(self._node, self._started_at)
            return Answer(200, text, metrics.CONTENT_TYPE)
        if path in ("/", "/status.json"):
            return self._status(path)
        return Answer(404, _PATHS)

    def _status(self, path: str) -> Answer:
        node = self._node
        process = Process(iso(self._started_at), node.is_ready, self._problems())
        status = read_status(node.database, node.config, node.clock())
        if path == "/":
            return Answer(200, render_page(status, process), _HTML)
        content = {**asdict(status), "process": asdict(process)}
        return Answer(200, json.dumps(content, indent=1) + "\n", _JSON)

    def _problems(self) -> list[str]:
        """Say why the node is not ready, with no sentence for what is as it should be."""
        node, said = self._node, []
        if not node.is_alive:
            said.append("A part of the node has ended; restart it.")
        if not node.runner.is_ready:
            said.append("The model is not loaded (yet); the last errors below say why.")
        if not node.can_note:
            said.append("The database cannot be written, and nothing is taken; free space.")
        if node.spool.is_full():
            said.append("The disk is below its watermark, and nothing is taken; free space.")
        return said


@contextmanager
def serve_status(address: str, port: int, monitor: Monitor) -> Iterator[int]:
    """Answer on a port while entered; gives the port.

    Raises
    ------
    NodeError
        If the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            body = self._head()
            self.wfile.write(body)

        def do_HEAD(self) -> None:
            self._head()

        def _head(self) -> bytes:
            """Send everything but the body, and give that."""
            try:
                answer = _ELSEWHERE
                if not is_local or _is_local(self.headers.get("Host")):
                    answer = monitor.answer(self.path.partition("?")[0])
            except Exception as error:  # the database may be busy or gone
                answer = Answer(503, f"{type(error).__name__}\n")
            body = answer.text.encode()
            self.send_response(answer.status)
            for name, value in _headers(answer).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            return body

        def version_string(self) -> str:
            return "oncofm"

        def log_message(self, *_: object) -> None:
            pass

    try:
        server = ThreadingHTTPServer((address, port), Handler)
    except OSError as error:
        raise NodeError(
            f"Port {port} of {address} for health and metrics is taken or not there "
            f"({error.strerror or error}); choose another."
        ) from error
    is_local = ipaddress.ip_address(str(server.server_address[0])).is_loopback
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="status", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def _is_local(host: str | None) -> bool:
    """Whether a request is for this machine: a page of elsewhere may lead a browser here."""
    return host is None or re.sub(r":\d+$", "", host) in _LOCAL


def _headers(answer: Answer) -> dict[str, str]:
    """Headers that let a browser do no more than it must."""
    return {
        "Content-Type": answer.content_type,
        "Content-Security-Policy": content_policy(),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
