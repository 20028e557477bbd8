"""Health and metrics of a node, on a port of the loopback; UIDs and counts only."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from oncofm.pacs.errors import NodeError

if TYPE_CHECKING:
    from oncofm.pacs.node import Node

_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Monitor:
    """Answers for a node."""

    def __init__(self, node: "Node") -> None:
        self._node = node

    def answer(self, path: str) -> tuple[int, str]:
        """HTTP status and text for a path."""
        if path == "/healthz":
            return (200, "ok\n") if self._node.is_alive else (503, "a thread has ended\n")
        if path == "/readyz":
            return (200, "ready\n") if self._node.is_ready else (503, "not ready\n")
        if path == "/metrics":
            return 200, self.metrics()
        return 404, "there are /healthz, /readyz and /metrics\n"

    def metrics(self) -> str:
        """Text in the format of Prometheus."""
        node, lines = self._node, []

        def add(name: str, kind: str, *values: tuple[str, float]) -> None:
            lines.append(f"# TYPE oncofm_pacs_{name} {kind}")
            lines.extend(f"oncofm_pacs_{name}{labels} {value:g}" for labels, value in values)

        counts, receiver = node.database.counts(), node.receiver
        add("studies", "gauge", *((f'{{state="{key}"}}', n) for key, n in counts.items()))
        ends = [(f'{{end="{end}"}}', n) for end, n in receiver.counts.items()]
        add("objects_total", "counter", *ends)
        add("received_bytes_total", "counter", ("", receiver.n_bytes))
        rows = node.database.rows(
            "SELECT destination, state, count(*) FROM deliveries GROUP BY destination, state"
        )
        labels = [(f'{{destination="{name}",state="{state}"}}', n) for name, state, n in rows]
        add("deliveries", "gauge", *labels)
        add("queue_length", "gauge", ("", len(node.queue)))
        add("jobs_total", "counter", ("", node.worker.n_jobs))
        add("job_seconds_total", "counter", ("", node.worker.seconds))
        add("disk_free_bytes", "gauge", ("", node.spool.free_bytes))
        add("ready", "gauge", ("", float(node.is_ready)))
        return "\n".join(lines) + "\n"


@contextmanager
def serve_status(port: int, monitor: Monitor) -> Iterator[int]:
    """Answer on a port of the loopback while entered; gives the port.

    Raises
    ------
    NodeError
        If the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            try:
                status, text = monitor.answer(self.path.partition("?")[0])
            except Exception as error:  # the database may be busy or gone
                status, text = 503, f"{type(error).__name__}\n"
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", _TEXT)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise NodeError(
            f"Port {port} for health and metrics is taken ({error.strerror}); choose another."
        ) from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="status", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
