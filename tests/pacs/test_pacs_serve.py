"""``oncofm pacs serve`` as a process of its own, with the network in a process of its own."""

import contextlib
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pydicom
import pytest
from nodes import PATIENCE_S, free_port, make_config, pacs, push
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement

MAIN = "from oncofm.cli.pacs import app; app()"


CANARY = "Kanarienvogel"


def named(study, folder: Path) -> list[Path]:
    """Give the study a patient whose data libraries like to complain about."""
    folder.mkdir()
    for path in [*study.ct_files, study.seg_file]:
        dataset = pydicom.dcmread(path)
        dataset.PatientName = f"{CANARY}^" * 9
        for keyword in ("PatientBirthDate", "StudyTime", "PatientAge"):
            dataset[keyword] = DataElement(
                keyword, dictionary_VR(keyword), CANARY, validation_mode=IGNORE
            )
        dataset.save_as(folder / path.name)
    return sorted(folder.iterdir())


def is_ready(port: int) -> bool:
    with contextlib.suppress(OSError):
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").status == 200
    return False


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The PN component length")  # of this test
def test_serve(tmp_path, study, orthanc):
    config = make_config(
        tmp_path,
        {"PACS": pacs(orthanc.dicom_port)},
        node={"status_port": free_port()},
        rules=[{"name": "all", "quiet_s": 0.5, "destinations": ["PACS"]}],
    )
    command = [sys.executable, "-c", MAIN, "serve", "--config", str(tmp_path / "pacs.yml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            end = time.monotonic() + PATIENCE_S
            while not is_ready(config.node.status_port) and time.monotonic() < end:
                time.sleep(0.1)
            push(config.node.port, named(study, tmp_path / "named"))
            started = time.monotonic()
            while not orthanc.instances and time.monotonic() < started + PATIENCE_S:
                time.sleep(0.02)
            print(f"{time.monotonic() - started:.2f} s from the last object to the report")
            assert len(orthanc.instances) == 1
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE_S) == 0
        said = server.stderr.read()
        assert "listens on port" in said
        assert CANARY not in said
