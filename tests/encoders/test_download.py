"""Downloads from a server on the loopback interface that behaves badly on request."""

import fcntl
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from oncofm.encoders import download as module
from oncofm.encoders.download import download
from oncofm.errors import DownloadError, OutputNotWritableError, WeightsInvalidError

CONTENT = bytes(range(256)) * 20_000  # 5 MB


@dataclass
class Server:
    """What the server offers, how it misbehaves, and what it was asked for."""

    content: bytes = CONTENT
    etag: str | None = '"one"'
    ranges: bool = True
    sends_length: bool = True
    cut_after: list[int] = field(default_factory=list)
    """Bytes after which each of the next responses breaks off."""
    statuses: list[int] = field(default_factory=list)
    """Statuses that the next requests get instead of the file."""
    asked: list[str | None] = field(default_factory=list)
    """The Range header of each request."""
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.asked.append(wanted)
        if self.statuses:
            request.send_error(self.statuses.pop(0))
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start >= len(self.content):
            request.send_response(416)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        body = self.content[start:]
        request.send_response(206 if start else 200)
        if self.etag:
            request.send_header("ETag", self.etag)
        if start:
            total = len(self.content)
            request.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if self.sends_length:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if self.cut_after:
            body = body[: self.cut_after.pop(0)]
            request.close_connection = True
        request.wfile.write(body)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "_PAUSE_S", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state.answer(self)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        state.url = f"http://127.0.0.1:{http_server.server_port}/weights?download=1"
        thread = threading.Thread(target=http_server.serve_forever, args=(0.01,))
        thread.start()
        yield state
        http_server.shutdown()
        thread.join()


def fetch(server: Server, target: Path, verify=lambda path: None) -> list[tuple[int, int | None]]:
    seen = []
    download(server.url, target, verify, lambda done, total: seen.append((done, total)))
    return seen


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "new folder" / "weights.torch"


def files_beside(target: Path) -> set[str]:
    return {path.name for path in target.parent.iterdir()}


def test_a_download(server, target):
    seen = fetch(server, target)

    assert target.read_bytes() == CONTENT
    assert files_beside(target) == {"weights.torch"}
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert server.asked == [None]


def test_a_broken_connection_goes_on_where_it_broke(server, target):
    server.cut_after = [2_000_000, 1_500_000]

    fetch(server, target)

    assert target.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=2000000-", "bytes=3500000-"]


def interrupt(server: Server, target: Path, at: int) -> None:
    """A first command that ends before the file is complete."""
    server.cut_after = [at] + [0] * 10
    with pytest.raises(DownloadError, match=f"{at} bytes are kept, run the command again"):
        fetch(server, target)
    server.cut_after = []
    server.asked = []


def test_a_later_command_goes_on(server, target):
    interrupt(server, target, 3_000_000)
    assert files_beside(target) == {"weights.torch.part", "weights.torch.part.json"}

    seen = fetch(server, target)

    assert target.read_bytes() == CONTENT
    assert server.asked == ["bytes=3000000-"]
    assert seen[0] == (3_000_000, len(CONTENT))


@pytest.mark.parametrize(
    ("etag", "content"),
    [('"two"', CONTENT[::-1]), ('"one"', CONTENT[:-1])],
    ids=["other ETag", "other length"],
)
def test_a_changed_file_starts_again(server, target, etag, content):
    interrupt(server, target, 3_000_000)
    server.etag, server.content = etag, content

    fetch(server, target)

    assert target.read_bytes() == content
    assert server.asked == ["bytes=3000000-", None]


def test_a_file_that_shrank_below_what_is_here_starts_again(server, target):
    interrupt(server, target, 3_000_000)
    server.content = CONTENT[:1000]

    fetch(server, target)

    assert target.read_bytes() == CONTENT[:1000]


def test_another_address_starts_again(server, target):
    interrupt(server, target, 3_000_000)
    server.url += "&mirror=2"

    fetch(server, target)

    assert target.read_bytes() == CONTENT
    assert server.asked == [None]


def test_bytes_without_a_note_of_their_origin_are_not_used(server, target):
    target.parent.mkdir()
    target.with_name("weights.torch.part").write_bytes(b"who knows")
    target.with_name("weights.torch.part.json").write_text("{damaged")

    fetch(server, target)

    assert target.read_bytes() == CONTENT
    assert server.asked == [None]


def test_a_server_without_ranges_starts_again(server, target):
    server.ranges = False
    server.cut_after = [2_000_000]

    fetch(server, target)

    assert target.read_bytes() == CONTENT


def test_a_server_that_tells_no_length(server, target):
    server.sends_length = False

    seen = fetch(server, target)

    assert target.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), None)


def test_a_complete_part_is_not_asked_for_again(server, target):
    interrupt(server, target, 3_000_000)
    target.with_name("weights.torch.part").write_bytes(CONTENT)

    fetch(server, target)

    assert target.read_bytes() == CONTENT
    assert server.asked == []


def test_a_busy_server_is_asked_again(server, target):
    server.statuses = [503, 429]

    fetch(server, target)

    assert target.read_bytes() == CONTENT
    assert len(server.asked) == 3


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_ends_it_at_once(server, target, status):
    server.statuses = [status]

    with pytest.raises(DownloadError, match=f"HTTP status {status} .*; check the address"):
        fetch(server, target)

    assert len(server.asked) == 1
    assert not target.exists()


def test_no_server(server, target):
    server.url = "http://127.0.0.1:9/weights"
    with pytest.raises(DownloadError, match=r"could not be downloaded \(.*refused\)"):
        fetch(server, target)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/weights", "weights.torch"])
def test_other_addresses_are_refused(target, url):
    with pytest.raises(DownloadError, match="is no http or https address"):
        download(url, target, lambda path: None, lambda done, total: None)


def test_what_is_not_valid_gets_no_name_and_is_not_kept(server, target):
    def refuse(path: Path) -> None:
        assert path.read_bytes() == CONTENT
        raise WeightsInvalidError("no")

    with pytest.raises(WeightsInvalidError):
        fetch(server, target, refuse)

    assert files_beside(target) == set()


def test_an_existing_file_is_replaced_only_by_a_valid_one(server, target):
    target.parent.mkdir()
    target.write_bytes(b"old")
    server.statuses = [404]
    with pytest.raises(DownloadError):
        fetch(server, target)
    assert target.read_bytes() == b"old"

    fetch(server, target)

    assert target.read_bytes() == CONTENT


def test_two_processes_do_not_write_one_file(server, target):
    target.parent.mkdir()
    with target.with_name("weights.torch.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match="being downloaded by another process"):
            fetch(server, target)


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputNotWritableError, match="cannot be written"):
        fetch(server, tmp_path / "file" / "weights.torch")


def test_the_note_holds_what_tells_versions_apart(server, target):
    interrupt(server, target, 1_000_000)
    note = json.loads(target.with_name("weights.torch.part.json").read_text())
    assert note["url"] == server.url
    assert (note["etag"], note["size"]) == ('"one"', len(CONTENT))
