"""Destinations in bad weather."""

import http.server
import socket
import threading
from contextlib import contextmanager

import pytest
from fakes import VoxelEncoder
from nodes import PATIENCE_S, free_port, pacs
from pydicom.uid import Comprehensive3DSRStorage, ImplicitVRLittleEndian
from pynetdicom import AE, build_context, evt

from oncofm.pacs.config_peers import DicomDestination, StowDestination
from oncofm.pacs.database import Delivery
from oncofm.pacs.jobs import Order, run_order
from oncofm.pacs.send_dicom import send_dicom
from oncofm.pacs.send_stow import send_stow
from oncofm.workflow.settings import Settings


@pytest.fixture(scope="module")
def report(study, tmp_path_factory) -> Delivery:
    import pydicom

    uid = str(pydicom.dcmread(study.seg_file).StudyInstanceUID)
    settings = Settings(random_seed=0, device="cpu", sr="auto")
    files = (*study.ct_files, study.seg_file)
    end = run_order(Order(uid, files, tmp_path_factory.mktemp("out"), settings), VoxelEncoder)
    (found,) = end.reports
    return Delivery(
        *("PACS", found.sop_uid, found.sop_class, "key", 1, str(found.path)),
        *("pending", 0, 0.0, "", "", 0.0),
    )


def to(port: int, **other) -> DicomDestination:
    return DicomDestination(**(pacs(port, "PEER") | other))


@contextmanager
def peer(answer, **contexts):
    ae = AE("PEER")
    ae.add_supported_context(Comprehensive3DSRStorage, **contexts)
    port = free_port()
    handlers = [(evt.EVT_C_STORE, answer)]
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    try:
        yield port, ae
    finally:
        server.shutdown()


def verdict(found):
    ((_, verdict),) = list(found)
    return verdict


def test_nobody_there(report):
    found = verdict(send_dicom(to(free_port()), [report]))
    assert found.state == "pending"
    assert "does not answer; start it" in found.message


def test_association_rejected(report):
    with peer(lambda event: 0) as (port, ae):
        ae.require_calling_aet = ["SOMEBODY"]
        found = verdict(send_dicom(to(port), [report]))
    assert (found.state, found.status) == ("pending", "RJ 1/3")
    assert "rejects the association; make ONCOFM known there" in found.message


def test_association_rejected_for_other_reasons(report):
    with peer(lambda event: 0) as (port, ae):
        ae.maximum_associations = 1
        other = AE("OTHER")
        held = other.associate("127.0.0.1", port, [build_context(Comprehensive3DSRStorage)])
        busy = verdict(send_dicom(to(port), [report]))
        held.release()
        ae.maximum_associations, ae.require_called_aet = 10, True
        wrong = verdict(send_dicom(to(port, ae_title="OTHER"), [report]))
    assert (busy.state, busy.status) == ("pending", "RJ 3/2")
    assert "it is busy and is asked again" in busy.message
    assert "rejects the association; mend its AE title" in wrong.message


def test_slow(report, hasty):
    done = threading.Event()
    with peer(lambda event: done.wait(PATIENCE_S) and 0) as (port, _):
        found = verdict(send_dicom(to(port), [report]))
        done.set()
    assert found.state == "pending"
    assert "gave no answer" in found.message


def test_closing_in_the_middle(report, hasty):
    def hang_up(event):
        event.assoc.abort()
        return 0

    with peer(hang_up) as (port, _):
        found = [one for _, one in send_dicom(to(port), [report, report])]
    assert [one.state for one in found] == ["pending", "pending"]
    assert all(one.message for one in found)


def test_closing_at_once(report):
    with socket.create_server(("127.0.0.1", 0)) as server:
        closer = threading.Thread(target=lambda: server.accept()[0].close(), daemon=True)
        closer.start()
        found = verdict(send_dicom(to(server.getsockname()[1]), [report]))
    assert found.state == "pending"


def test_no_presentation_context(report):
    ae = AE("PEER")
    ae.add_supported_context("1.2.840.10008.5.1.4.1.1.88.11")
    ae.add_supported_context("1.2.840.10008.1.1")
    port = free_port()
    server = ae.start_server(("127.0.0.1", port), block=False)
    try:
        found = verdict(send_dicom(to(port), [report]))
    finally:
        server.shutdown()
    assert (found.state, found.status) == ("refused", "no context")
    assert "takes nothing of class 1.2.840.10008.5.1.4.1.1.88.34; configure it to" in found.message


def test_implicit_only(report):
    got = []

    def take(event):
        got.append(event.dataset)
        return 0

    with peer(take, transfer_syntax=ImplicitVRLittleEndian) as (port, _):
        found = verdict(send_dicom(to(port), [report]))
    assert found.state == "sent"
    assert got[0].SOPInstanceUID == report.sop_uid


def test_damaged_and_missing_files(report, tmp_path):
    from dataclasses import replace

    (tmp_path / "a.dcm").write_text("garbage")
    bad = replace(report, file=str(tmp_path / "a.dcm"))
    gone = replace(report, file=str(tmp_path / "b.dcm"))
    with peer(lambda event: 0) as (port, _):
        found = [one for _, one in send_dicom(to(port), [bad, report, gone])]
    assert sorted(one.state for one in found) == ["refused", "refused", "sent"]
    web = StowDestination(type="stow", url="http://127.0.0.1:1/x")
    assert "cannot be read" in verdict(send_stow(web, [bad])).message


def test_tls_that_cannot_be_set_up(report, tmp_path):
    there = to(free_port(), tls={"ca": str(tmp_path / "none.pem")})
    assert "cannot be set up" in verdict(send_dicom(there, [report])).message


@contextmanager
def web(status: int, body: bytes = b"", media_type: str = "application/dicom+json"):
    class Handler(http.server.BaseHTTPRequestHandler):
        requests: list = []  # noqa: RUF012

        def do_POST(self):
            self.requests.append(self.headers)
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", Handler.requests
    finally:
        server.shutdown()
        server.server_close()


FAILED = b'{"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [43264]}}]}}'


@pytest.mark.parametrize(
    ("status", "body", "state", "word"),
    [
        (200, b"{}", "sent", "HTTP 200"),
        (202, FAILED, "refused", "A900"),
        (409, FAILED, "refused", "A900"),
        (409, FAILED.replace(b"43264", b"42752"), "pending", "A700"),
        (409, FAILED.replace(b"43264", b"45070"), "sent", "B00E"),  # it has it already
        (409, b"<html>", "refused", "HTTP 409"),
        (415, b"", "refused", "HTTP 415"),
        (503, b"", "pending", "HTTP 503"),
        (429, b"", "pending", "HTTP 429"),
        (200, b"nonsense", "pending", ""),
    ],
)
def test_stow_answers(report, status, body, state, word):
    with web(status, body) as (url, _):
        found = verdict(send_stow(StowDestination(type="stow", url=url), [report]))
    assert (found.state, found.status) == (state, word)


def test_stow_token(report, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    with web(200, b"{}") as (url, requests):
        there = StowDestination(type="stow", url=url, token_file=tmp_path / "token")
        assert verdict(send_stow(there, [report])).state == "sent"
        assert requests[0]["Authorization"] == "Bearer secret"
        there = StowDestination(type="stow", url=url, token_file=tmp_path / "none")
        assert "token cannot be read" in verdict(send_stow(there, [report])).message
    found = verdict(send_stow(StowDestination(type="stow", url=url, timeout_s=1.0), [report]))
    assert found.state == "pending"
    assert "does not answer" in found.message
