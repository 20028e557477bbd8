"""Fixtures of the tests of the node."""

import json
import urllib.request

import pytest
from orthanc import run_orthanc
from postgres import run_postgres
from studies import write_study


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
        urllib.request.urlopen(request, timeout=10).close()
    return one_orthanc


@pytest.fixture(scope="session")
def postgres():
    with run_postgres() as server:
        yield server
