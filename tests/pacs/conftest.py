"""Fixtures of the tests of the node."""

import json
import urllib.request

import pytest
from orthanc import run_orthanc
from postgres import run_postgres
from pynetdicom.association import Association
from studies import write_study

from oncofm.pacs import send_commitment, send_dicom


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """A small CT and its SEG."""
    return write_study(tmp_path_factory.mktemp("study"), "pacs", shape=(64, 48, 24))


@pytest.fixture(scope="session")
def one_orthanc(tmp_path_factory):
    with run_orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture
def orthanc(one_orthanc):
    """A server that holds nothing."""
    for patient in json.loads(one_orthanc.get("/patients")[1]):
        request = urllib.request.Request(f"{one_orthanc.http}/patients/{patient}", method="DELETE")
        urllib.request.urlopen(request, timeout=180).close()
    return one_orthanc


@pytest.fixture
def hasty(monkeypatch):
    """Peers have all the time to accept an association, and little to answer on it."""
    open_association = send_dicom.open_association

    def open_hastily(*arguments):
        association = open_association(*arguments)
        if isinstance(association, Association):
            association.dimse_timeout = 0.2
        return association

    for module in (send_dicom, send_commitment):
        monkeypatch.setattr(module, "open_association", open_hastily)


@pytest.fixture(scope="session")
def postgres():
    with run_postgres() as server:
        yield server
