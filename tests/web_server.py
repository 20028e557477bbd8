"""A DICOMweb server for tests that answers wrongly where it is told to."""

import http.server
import io
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

JSON = "application/dicom+json"
STUDY, SERIES = "1.2.3", "1.2.3.4"
ROOT = "/dicom-web"
SERIES_PATH = f"{ROOT}/studies/{STUDY}/series/{SERIES}"
BOUNDARY = "a+b"


def instance(
    uid: str,
    series: str = SERIES,
    study: str = STUDY,
    syntax: str = ExplicitVRLittleEndian,
    n_bytes: int = 100,
) -> bytes:
    """A DICOM file of few elements."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.Modality = "CT"
    dataset.ImageComments = "x" * n_bytes
    file = io.BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def listing(*uids: str, sop_class: str = CTImageStorage, tag: str = "00080018") -> bytes:
    """DICOM JSON that lists something by UID."""
    return json.dumps(
        [
            {
                tag: {"vr": "UI", "Value": [uid]},
                "00080016": {"vr": "UI", "Value": [sop_class]},
                "00080060": {"vr": "CS", "Value": ["CT"]},
            }
            for uid in uids
        ]
    ).encode()


def multipart(*files: bytes, media_type: str = "application/dicom") -> bytes:
    parts = [
        f"--{BOUNDARY}\r\nContent-Type: {media_type}\r\n\r\n".encode() + file + b"\r\n"
        for file in files
    ]
    return b"".join(parts) + f"--{BOUNDARY}--".encode()


@dataclass
class Reply:
    """An answer; `n_sent` of its bytes are sent before the connection is closed."""

    body: bytes = b""
    media_type: str = f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"'
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    n_sent: int | None = None
    act: Callable[[http.server.BaseHTTPRequestHandler], None] = lambda handler: None


@dataclass
class WebServer:
    """A series of instances, and the answers that come before the right ones, by path."""

    port: int
    files: dict[str, bytes]
    wrong: dict[str, list[Reply]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{ROOT}"

    @property
    def paths(self) -> list[str]:
        """What was asked for by WADO-RS, below the series."""
        found = [path.removeprefix(SERIES_PATH) for path, _ in self.requests]
        return [path for path in found if "?" not in path]

    def reply(self, path: str) -> Reply:
        place, query = urlsplit(path).path, parse_qs(urlsplit(path).query)
        if self.wrong.get(place):
            return self.wrong[place].pop(0)
        is_first = query.get("offset", ["0"]) == ["0"]
        if place == f"{ROOT}/studies/{STUDY}/series":
            return Reply(listing(*[SERIES] * is_first, tag="0020000E"), JSON)
        if place == f"{SERIES_PATH}/instances":
            return Reply(listing(*self.files) if is_first else b"", JSON)
        if place == SERIES_PATH:
            return Reply(multipart(*self.files.values()))
        uid = place.removeprefix(f"{SERIES_PATH}/instances/")
        return Reply(multipart(self.files[uid])) if uid in self.files else Reply(status=404)


@contextmanager
def run_web_server(*uids: str, tls: ssl.SSLContext | None = None) -> Iterator[WebServer]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            pacs.requests.append((self.path, dict(self.headers)))
            reply = pacs.reply(self.path)
            self.send_response(reply.status)
            headers = {"Content-Type": reply.media_type, "Content-Length": str(len(reply.body))}
            for name, value in (headers | reply.headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body[: reply.n_sent])
            reply.act(self)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    pacs = WebServer(server.server_address[1], {uid: instance(uid) for uid in uids})
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield pacs
    finally:
        server.shutdown()
        server.server_close()
