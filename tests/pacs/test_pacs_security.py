"""Strangers and garbage: refused, with a line in the log, and the node goes on."""

import contextlib
import io
import json
import logging
import random
import socket
import ssl
import struct
import subprocess
import urllib.request
import zlib

import pydicom
import pytest
from nodes import PATIENCE_S, PEER, TITLE, free_port, make_config, push, running
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.presentation import build_context
from tools import require_tool

from oncofm.pacs.errors import NodeError, ObjectRefusedError
from oncofm.pacs.objects import check_inflated, loggable, read_facts

CT = "1.2.840.10008.5.1.4.1.1.2"
CANARY = "Kanarienvogel"
QUIET = [{"name": "all", "quiet_s": 30, "destinations": [], "shadow": True}]


@pytest.fixture
def node(tmp_path):
    with running(make_config(tmp_path, {}, rules=QUIET)) as node:
        yield node


def echo(port: int, *options: str) -> subprocess.CompletedProcess:
    command = [require_tool("echoscu"), "-to", "60", *options, "127.0.0.1", str(port)]
    return subprocess.run(command, capture_output=True, text=True)


def events(node, name: str) -> list[dict]:
    """What the log says of an event, once it says anything: a peer may hear of it earlier."""

    def found() -> list[dict]:
        lines = [json.loads(line) for line in node.audit.splitlines()]
        return [line for line in lines if line["event"] == name]

    node.wait(found)
    return found()


def assert_alive(node) -> None:
    assert echo(node.port, "-aet", PEER, "-aec", TITLE).returncode == 0
    assert node.node.is_alive


def store(port: int, dataset: pydicom.Dataset, syntax: str = ExplicitVRLittleEndian) -> int | None:
    """Status that a peer gets for a data set; None if the association ends."""
    ae = AE(PEER)
    contexts = [build_context(dataset.SOPClassUID, syntax)]
    association = ae.associate("127.0.0.1", port, contexts, ae_title=TITLE)
    assert association.is_established
    answer = association.send_c_store(dataset)
    association.release()
    return answer.get("Status")


def ct(study) -> pydicom.Dataset:
    return pydicom.dcmread(study.ct_files[0])


def associate(node) -> Association:
    """Open an association whose answers are for the test: the library takes none."""
    contexts = [build_context(CT, ExplicitVRLittleEndian)]
    association = AE(PEER).associate("127.0.0.1", node.port, contexts, ae_title=TITLE)
    association._reactor_checkpoint.clear()
    node.wait(lambda: association._is_paused)
    return association


def test_unknown_caller(node):
    done = echo(node.port, "-aet", "STRANGER", "-aec", TITLE)
    assert "Calling AE Title Not Recognized" in done.stderr
    (line,) = events(node, "association_refused")
    assert (line["calling"], line["called"], line["address"]) == ("STRANGER", TITLE, "127.0.0.1")
    assert_alive(node)


def test_wrong_called(node):
    done = echo(node.port, "-aet", PEER, "-aec", "SOMEBODY")
    assert "Called AE Title Not Recognized" in done.stderr
    assert len(events(node, "association_refused")) == 1


def test_several_titles(tmp_path, study):
    rules = [
        {**QUIET[0], "name": "two", "match": {"called": ["TWO"]}},
        {**QUIET[0], "name": "one", "match": {"called": ["ONE"]}},
    ]
    config = make_config(tmp_path, {}, node={"ae_titles": ["ONE", "TWO"]}, rules=rules)
    with running(config) as node:
        push(node.port, [*study.ct_files, study.seg_file], "-aec", "ONE")
        node.indexed(25)
        node.clock.now += 31
        node.wait_for("done")
        assert node.study.rule == "one"


def test_other_classes_are_not_negotiated(node):
    ae = AE(PEER)
    contexts = [build_context("1.2.840.10008.5.1.4.1.1.6.1", ExplicitVRLittleEndian)]  # ultrasound
    association = ae.associate("127.0.0.1", node.port, contexts, ae_title=TITLE)
    assert not association.is_established or not association.accepted_contexts
    association.abort()


@pytest.mark.parametrize("length", [300_000_000, 0xFFFFFFFF])
def test_oversized_pdu(node, length):
    with socket.create_connection(("127.0.0.1", node.port), timeout=PATIENCE_S) as peer:
        peer.sendall(struct.pack(">BBL", 1, 0, length) + b"\0" * 1000)
        answer = peer.recv(100)
        assert answer == b"" or answer[0] == 7  # A-ABORT
    (line,) = events(node, "connection_failed")
    assert line["reason"] == "pdu_too_long"
    assert_alive(node)


def test_object_without_end(tmp_path, study):
    config = make_config(tmp_path, {}, rules=QUIET, node={"max_object_mb": 0.5})
    dataset = ct(study)
    dataset.add_new(0x00091000, "OB", b"x" * 1_000_000)
    with running(config) as node:
        assert store(node.port, dataset) is None
        assert events(node, "connection_failed")[0]["reason"] == "object_too_large"
        assert_alive(node)
        assert node.spooled == []


def test_too_many_associations(tmp_path):
    config = make_config(tmp_path, {}, rules=QUIET, node={"max_associations": 1})
    with running(config) as node:
        ae = AE(PEER)
        contexts = [build_context("1.2.840.10008.1.1")]
        first = ae.associate("127.0.0.1", node.port, contexts, ae_title=TITLE)
        assert first.is_established
        assert "Local Limit Exceeded" in echo(node.port, "-aet", PEER, "-aec", TITLE).stderr
        first.release()


def test_full_disk(tmp_path, study):
    config = make_config(tmp_path, {}, rules=QUIET, node={"min_free_mb": 1e12})
    with running(config) as node:
        assert store(node.port, ct(study)) == 0xA700
        (line,) = events(node, "object_refused")
        assert line["status"] == "A700"
        assert line["message"] == "The disk is below its watermark; free space."
        assert not node.node.is_ready


def test_spool_that_cannot_be_written(node, study, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("oncofm.pacs.spool.os.fsync", fail)
    assert store(node.port, ct(study)) == 0xA700
    monkeypatch.undo()
    assert store(node.port, ct(study)) == 0
    node.indexed(1)
    left = (node.node.config.node.folder / "spool").rglob("*")
    assert [path.suffix for path in sorted(left)] == ["", ".dcm"]


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("StudyInstanceUID", "../../../etc/passwd"),
        ("StudyInstanceUID", ""),
        ("SeriesInstanceUID", "/tmp/x"),
        ("StudyInstanceUID", CANARY),
        ("StudyInstanceUID", "1." * 40 + "1"),
    ],
)
def test_path_like_uid(node, study, keyword, value):
    dataset = ct(study)
    dataset[keyword].value = value
    assert store(node.port, dataset) == 0xC000
    (line,) = events(node, "object_refused")
    assert "has no usable" in line["message"]
    assert node.spooled == []
    assert CANARY not in node.audit
    assert_alive(node)


def test_uid_that_is_not_announced(node, study):
    dataset = ct(study)
    association = associate(node)
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CT, "1.2.3"
    request.DataSet = io.BytesIO(encode(dataset, False, True))
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
    _, answer = association.dimse.get_msg(block=True)
    assert answer.Status == 0xA900
    request.AffectedSOPInstanceUID = dataset.SOPInstanceUID
    request.DataSet = io.BytesIO(b"\x08\x00\x16\x00UI\xff\xff" + b"garbage" * 10)
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
    _, answer = association.dimse.get_msg(block=True)
    assert answer.Status == 0xC000
    association._reactor_checkpoint.set()
    association.release()
    assert node.spooled == []
    assert_alive(node)


def test_bytes_that_are_no_dicom(node):
    with socket.create_connection(("127.0.0.1", node.port), timeout=PATIENCE_S) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
        peer.recv(100)
    assert_alive(node)


def test_deflated_is_taken(node, study, tmp_path):
    dataset = ct(study)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "deflated.dcm")
    push(node.port, [tmp_path / "deflated.dcm"], "-xd")
    node.indexed(1)
    assert pydicom.dcmread(node.spooled[0]).PixelData == dataset.PixelData


def test_deflated_bomb(tmp_path, study):
    dataset = ct(study)
    dataset.add_new(0x00091000, "OB", bytes(50_000_000))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "bomb.dcm")
    assert (tmp_path / "bomb.dcm").stat().st_size < 100_000
    config = make_config(tmp_path, {}, rules=QUIET, node={"max_object_mb": 10})
    with running(config) as node:
        assert store(node.port, dataset, DeflatedExplicitVRLittleEndian) == 0xC000
        (line,) = events(node, "object_refused")
        assert "becomes larger than 10 MB" in line["message"]
        assert_alive(node)


def test_inflating_is_bounded():
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = deflater.compress(bytes(20_000_000)) + deflater.flush()
    check_inflated(bomb, 20_000_000)
    with pytest.raises(ObjectRefusedError, match="becomes larger than 10 MB"):
        check_inflated(bomb, 10e6)
    with pytest.raises(ObjectRefusedError, match="not deflated as it claims"):
        check_inflated(b"\xff" * 100, 10e6)


def nested(depth: int) -> bytes:
    """Sequences of undefined length in one another, never closed."""
    return b"\xfe\xff\x00\xe0\xff\xff\xff\xff\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff" * depth


def test_malformed_data_sets(node, study):
    """Whatever stands in a data set, it is refused with one line, or read as far as it goes."""
    headers = []
    for path in (study.ct_files[0], study.seg_file):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        headers.append(encode(dataset, False, True))
    start = headers[1].index(b"\x08\x00\x15\x11SQ") + 12
    bad = [data[: len(data) // 40] for data in headers]  # cut in the middle of an element
    bad += [headers[1][:start] + nested(20_000), b"\xff" * 1000]
    for n_refused, data in enumerate(bad, start=1):
        association = associate(node)
        request = C_STORE()
        request.MessageID, request.Priority = 1, 2
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CT, "1.2.3"
        request.DataSet = io.BytesIO(data)
        association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
        _, answer = association.dimse.get_msg(block=True)
        assert answer.Status in (0xA900, 0xC000)
        association._reactor_checkpoint.set()
        association.release()
        assert len(events(node, "object_refused")) == n_refused
    assert node.spooled == []
    assert_alive(node)


@pytest.mark.filterwarnings("ignore")  # of this test
def test_damaged_bytes_are_refused_or_read(study):
    rng = random.Random(0)
    for path in (study.ct_files[0], study.seg_file):
        whole = path.read_bytes()[:20_000]
        for _ in range(150):
            data = bytearray(whole)
            for _ in range(rng.choice([1, 3, 30])):
                data[rng.randrange(132, len(data))] = rng.randrange(256)
            with contextlib.suppress(ObjectRefusedError):
                facts = read_facts(bytes(data))
                assert loggable(facts.study_uid) == facts.study_uid


def test_garbage_facts():
    with pytest.raises(ObjectRefusedError, match="cannot be read"):
        read_facts(b"garbage")
    assert loggable("1.2.3") == "1.2.3"
    assert CANARY not in loggable(CANARY)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of its own signing, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *(require_tool("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes"),
            *("-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.parametrize("mutual", [False, True])
def test_tls(tmp_path, certificate, mutual):
    cert, key = map(str, certificate)
    tls = {"certificate": cert, "key": key} | ({"client_ca": cert} if mutual else {})
    config = make_config(tmp_path, {}, rules=QUIET, node={"tls": tls})
    with running(config) as node:
        silent = socket.create_connection(("127.0.0.1", node.port))  # keeps nobody out
        anonymous = ["-aet", PEER, "-aec", TITLE, "+tla", "+cf", cert]
        known = ["-aet", PEER, "-aec", TITLE, "+tls", key, cert, "+cf", cert]
        assert echo(node.port, *known).returncode == 0
        assert (echo(node.port, *anonymous).returncode == 0) is not mutual
        assert echo(node.port, "-aet", PEER, "-aec", TITLE).returncode != 0  # plain
        assert events(node, "connection_failed")
        assert echo(node.port, *known).returncode == 0
        silent.close()


def test_tls_with_files_that_cannot_be_used(tmp_path, certificate):
    files = {"certificate": str(certificate[0]), "key": str(tmp_path / "none.key")}
    config = make_config(tmp_path / "etc", {}, node={"tls": files}, rules=QUIET)
    with pytest.raises(NodeError, match=r"none\.key \(No such file or directory\); mend these"):
        running(config).__enter__()


def test_sending_over_tls(tmp_path, study, certificate):
    cert, key = map(str, certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    ae = AE("SAFE")
    ae.add_supported_context("1.2.840.10008.5.1.4.1.1.88.34")
    got = []
    from pynetdicom import evt

    port = free_port()
    handlers = [(evt.EVT_C_STORE, lambda event: got.append(event.dataset) or 0)]
    server = ae.start_server(
        ("127.0.0.1", port), block=False, ssl_context=context, evt_handlers=handlers
    )
    there = {
        "type": "dicom",
        "host": "127.0.0.1",
        "port": port,
        "ae_title": "SAFE",
        "calling_ae_title": TITLE,
        "timeout_s": 60,
        "tls": {"ca": cert},
    }
    try:
        with running(make_config(tmp_path, {"SAFE": there})) as node:
            node.push([*study.ct_files, study.seg_file])
            node.indexed(25)
            node.clock.now += 31
            node.wait_for("done")
    finally:
        server.shutdown()
    assert len(got) == 1


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # of this test
def test_no_name_leaks(tmp_path, study, caplog, capfd, orthanc):
    """A patient's name is in what is received and sent, and nowhere else."""
    caplog.set_level(logging.DEBUG)
    from nodes import pacs

    files = []
    for path in [*study.ct_files, study.seg_file]:
        dataset = pydicom.dcmread(path)
        dataset.PatientName = f"{CANARY}^Hansi"
        dataset.PatientID = f"{CANARY}-1"
        dataset.StudyDescription = f"CT {CANARY}"
        dataset.save_as(tmp_path / path.name)
        files.append(tmp_path / path.name)
    bad = pydicom.dcmread(files[0])
    bad.SeriesInstanceUID = CANARY
    config = make_config(
        tmp_path / "etc",
        {"PACS": pacs(orthanc.dicom_port), "GONE": pacs(free_port(), "GONE")},
        node={"status_port": free_port()},
        retention={"images_hours": 1},
        sending={"attempts": 1},
    )
    url = f"http://127.0.0.1:{config.node.status_port}"
    with running(config) as node:
        push(node.port, files)
        assert store(node.port, bad) == 0xC000
        node.indexed(25)
        node.clock.now += 31
        node.wait_for("quarantined")
        texts = [urllib.request.urlopen(f"{url}/{page}").read() for page in ("metrics", "healthz")]
        folder = config.node.folder
        texts += [path.read_bytes() for path in folder.glob("*.jsonl")]
        names = [str(path.relative_to(folder)) for path in folder.rglob("*")]
        rows = node.node.database.studies(), node.node.database.deliveries("1")
    said = capfd.readouterr()
    everything = [*map(str, texts), *names, repr(rows), said.out, said.err, caplog.text]
    assert not [text for text in everything if CANARY.casefold() in text.casefold()]
    assert b'oncofm_pacs_studies{state="quarantined"} 1' in texts[0]
