"""A PACS for tests: Orthanc on the loopback, in a folder of its own."""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from ports import free_port
from pydicom.uid import DeflatedExplicitVRLittleEndian
from tools import require_tool

PLUGINS = Path("/usr/share/orthanc/plugins")
TITLE = "ORTHANC"
_PATIENCE_S = 180


@dataclass(frozen=True)
class Orthanc:
    """A running server."""

    http: str
    dicom_port: int

    def get(self, path: str, accept: str = "*/*") -> tuple[str, bytes]:
        """Media type and body of what is at a path."""
        request = urllib.request.Request(self.http + path, headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:
            return answer.headers["Content-Type"], answer.read()

    @property
    def instances(self) -> list[str]:
        """Orthanc's own ids."""
        return json.loads(self.get("/instances")[1])

    def find(self, sop_instance_uid: str) -> str:
        """Return the one id that Orthanc has for an instance."""
        request = urllib.request.Request(
            self.http + "/tools/lookup", data=sop_instance_uid.encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:
            (found,) = json.loads(answer.read())
        return found["ID"]

    def file(self, sop_instance_uid: str) -> bytes:
        """Return the file of an instance."""
        return self.get(f"/instances/{self.find(sop_instance_uid)}/file")[1]

    def wado(self, study_uid: str, series_uid: str, sop_instance_uid: str) -> bytes:
        """Return the file of an instance by WADO-RS, in the transfer syntax that it has."""
        path = f"/dicom-web/studies/{study_uid}/series/{series_uid}/instances/{sop_instance_uid}"
        media_type, body = self.get(
            path, 'multipart/related; type="application/dicom"; transfer-syntax=*'
        )
        boundary = media_type.partition("boundary=")[2].partition(";")[0].strip('"').encode()
        (part,) = body.split(b"--" + boundary)[1:-1]
        return part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")

    def store(self, paths: Iterable[Path]) -> None:
        """Send files by C-STORE, each in its own transfer syntax."""
        deflated, plain = [], []
        for path in paths:
            syntax = pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID
            (deflated if syntax == DeflatedExplicitVRLittleEndian else plain).append(str(path))
        # With -R it offers the classes of the files, instead of a list that lacks 3D reports.
        command = [require_tool("storescu"), "-R", "-aec", TITLE]
        server = ["127.0.0.1", str(self.dicom_port)]
        for option, files in (["-xe", plain], ["-xd", deflated]):
            if files:
                subprocess.run([*command, option, *server, *files], check=True, capture_output=True)

    def stow(self, paths: Iterable[Path]) -> None:
        """Send files by STOW-RS."""
        boundary = uuid.uuid4().hex
        start = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = b"".join(start + path.read_bytes() + b"\r\n" for path in paths)
        request = urllib.request.Request(
            f"{self.http}/dicom-web/studies",
            data=body + f"--{boundary}--\r\n".encode(),
            method="POST",
            headers={
                "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
                "Accept": "application/dicom+json",
            },
        )
        with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:
            failed = json.loads(answer.read()).get("00081198", {}).get("Value")
        assert not failed, failed


@contextmanager
def run_orthanc(folder: Path, **options: object) -> Iterator[Orthanc]:
    """Start a server that keeps everything below a folder, and stop it in the end."""
    program = require_tool("Orthanc")
    plugin = PLUGINS / "libOrthancDicomWeb.so"
    if not plugin.exists():
        message = f"TOOL MISSING: {plugin} is not installed, DICOMweb goes untested"
        if os.environ.get("ONCOFM_REQUIRE_TOOLS") == "1":
            pytest.fail(message)
        pytest.skip(message)
    http_port, dicom_port = free_port(), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    configuration = {
        "Name": "tests",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(plugin)],
        "HttpPort": http_port,
        "HttpBindAddresses": ["127.0.0.1"],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAet": TITLE,
        "DicomPort": dicom_port,
        "DicomBindAddresses": ["127.0.0.1"],
        "DicomAlwaysAllowStore": True,
        "OverwriteInstances": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        **options,
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with (folder / "orthanc.log").open("wb") as log:
        server = subprocess.Popen(
            [program, str(folder / "orthanc.json")], cwd=folder, stdout=log, stderr=log
        )
    try:
        orthanc = Orthanc(f"http://127.0.0.1:{http_port}", dicom_port)
        _wait(orthanc, server, folder / "orthanc.log")
        yield orthanc
    finally:
        server.terminate()
        try:
            server.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait(orthanc: Orthanc, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end and server.poll() is None:
        try:
            orthanc.get("/system")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"Orthanc did not start: {log.read_text(errors='replace')[-2000:]}")
