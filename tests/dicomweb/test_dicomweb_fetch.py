"""Fetching over DICOMweb: from Orthanc, and from a server that answers wrongly."""

import io
import json
import socket
import ssl
import subprocess
import threading
import time
import zlib

import pydicom
import pytest
from orthanc import run_orthanc
from ports import free_port
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless
from studies import write_study
from tools import require_tool
from web_server import (
    JSON,
    SERIES,
    SERIES_PATH,
    STUDY,
    Reply,
    instance,
    listing,
    multipart,
    run_web_server,
)

from oncofm.dicomweb import connection
from oncofm.dicomweb.address import Resource, is_url, parse_resource
from oncofm.dicomweb.fetch import fetch
from oncofm.dicomweb.search import find_series, find_studies
from oncofm.dicomweb.server import Limits, Server
from oncofm.errors import (
    OutputNotWritableError,
    WebAddressError,
    WebAnswerError,
    WebError,
    WebRefusedError,
    WebUnavailableError,
)

UIDS = ("1.9.1", "1.9.2", "1.9.3")
FAST = {"timeout_s": 60.0, "attempts": 3, "backoff_s": 1.0}


@pytest.fixture
def web():
    with run_web_server(*UIDS) as server:
        yield server


class Fetching:
    """A server as its client sees it, which notes the pauses instead of making them."""

    def __init__(self, web, folder, **limits):
        self.pauses: list[float] = []
        self.folder = folder
        self.server = Server(web.url, limits=Limits(**(FAST | limits)), pause=self.pauses.append)

    def fetch(self, url_path=f"/studies/{STUDY}/series/{SERIES}") -> list[str]:
        fetch(self.server, parse_resource(self.server.url + url_path), self.folder)
        return self.found

    @property
    def found(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []


def fails(fetching: Fetching, *words: str, error: type[WebError] = WebAnswerError) -> None:
    with pytest.raises(error) as caught:
        fetching.fetch()
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [name for name in fetching.found if not name.endswith(".dcm")]


ALL = [f"{uid}.dcm" for uid in UIDS]


# --- a real server ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    study = write_study(folder / "s", "web", shape=(64, 64, 12), transfer_syntax=JPEG2000Lossless)
    with run_orthanc(folder / "orthanc") as orthanc:
        orthanc.stow([*study.ct_files, study.seg_file])
        yield study, orthanc


def test_orthanc_gives_what_it_was_given(stored, tmp_path):
    study, orthanc = stored
    server = Server(f"{orthanc.http}/dicom-web")
    (found,) = find_studies(server, {"ModalitiesInStudy": "SEG"})
    assert (found.n_series, found.n_instances) == (2, len(study.ct_files) + 1)
    resource = Resource(server.url, found.uid)
    assert {series.modality for series in find_series(server, resource)} == {"CT", "SEG"}
    fetch(server, resource, tmp_path)
    for path in [*study.ct_files, study.seg_file]:
        sent = pydicom.dcmread(path)
        got = pydicom.dcmread(tmp_path / f"{sent.SOPInstanceUID}.dcm")
        assert got == sent
        assert got.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID
    assert len(list(tmp_path.iterdir())) == len(study.ct_files) + 1
    assert pydicom.dcmread(study.ct_files[0]).file_meta.TransferSyntaxUID == JPEG2000Lossless


def test_orthanc_gives_one_instance(stored, tmp_path):
    study, orthanc = stored
    server = Server(f"{orthanc.http}/dicom-web")
    resource = Resource(server.url, find_studies(server, {})[0].uid, study.seg_series_uid)
    fetch(server, resource.instance(study.seg_uid), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{study.seg_uid}.dcm"]
    with pytest.raises(WebAnswerError, match=r"nothing of instance 1\.2;"):
        fetch(server, resource.instance("1.2"), tmp_path)
    with pytest.raises(WebAnswerError, match=r"nothing of series 1\.2;"):
        fetch(server, resource.series("1.2"), tmp_path)
    with pytest.raises(WebAnswerError, match=r"no series of study 1\.2;"):
        fetch(server, Resource(server.url, "1.2"), tmp_path)
    with pytest.raises(WebRefusedError, match="HTTP 404"):
        fetch(Server(orthanc.http), Resource(orthanc.http, "1.2"), tmp_path)
    assert find_studies(server, {"ModalitiesInStudy": "MR"}) == []


# --- addresses ----------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "/series/3.4", "/series/3.4/instances/5.6", "/series/3.4/"])
def test_addresses(below):
    url = f"https://host:8443/a/dicom-web/studies/1.2{below}"
    resource = parse_resource(url)
    assert resource.url == url.rstrip("/")
    assert resource.service == "https://host:8443/a/dicom-web"
    assert is_url(url)
    assert not is_url("/data/https")


@pytest.mark.parametrize(
    "url",
    [
        "https://host/dicom-web",
        "https://host/dicom-web/studies/",
        "https://host/dicom-web/studies/../../etc",
        "https://host/dicom-web/studies/1.2/series",
        "https://host/dicom-web/studies/1.2/frames/1",
        "https://host/dicom-web/studies/1.2/series/1.2/instances/1.2/frames/1",
        "https://host/dicom-web/studies/1.2?token=geheim",
        "https://host/dicom-web/studies/" + "1" * 65,
        "https://anna:geheim@host/dicom-web/studies/1.2",
        "https://host/\r\nX: y/studies/1.2",
        "https://[::1/studies/1.2?geheim",
        "file:///etc/studies/1.2",
    ],
)
def test_what_is_no_address(url):
    with pytest.raises(WebAddressError, match="is no address") as caught:
        parse_resource(url)
    assert "geheim" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_service():
    with pytest.raises(WebAddressError, match="is no address of a service"):
        Server("file:///etc")


# --- good answers -------------------------------------------------------------------------


def test_a_series_in_one_request(web, tmp_path):
    fetching = Fetching(web, tmp_path / "new" / "folder")
    assert fetching.fetch() == ALL
    assert web.paths == [""]
    for uid in UIDS:
        assert (fetching.folder / f"{uid}.dcm").read_bytes() == web.files[uid]
    assert web.requests[0][1]["User-Agent"].startswith("oncofm/")


def test_a_study(web, tmp_path):
    assert Fetching(web, tmp_path).fetch(f"/studies/{STUDY}") == ALL


def test_what_is_there_is_not_fetched_again(web, tmp_path):
    fetching = Fetching(web, tmp_path)
    fetching.fetch()
    (tmp_path / "1.9.2.dcm").unlink()
    web.requests.clear()
    assert fetching.fetch() == ALL
    assert web.paths == ["/instances/1.9.2"]
    web.requests.clear()
    fetching.fetch()
    assert web.paths == []


def test_one_part_by_itself(web, tmp_path):
    web.wrong[f"{SERIES_PATH}/instances/1.9.2"] = [Reply(web.files["1.9.2"], "application/dicom")]
    path = f"/studies/{STUDY}/series/{SERIES}/instances/1.9.2"
    assert Fetching(web, tmp_path).fetch(path) == ["1.9.2.dcm"]


def test_a_list_of_many_pages(web, tmp_path):
    web.wrong[f"{SERIES_PATH}/instances"] = [
        Reply(listing("1.9.1", "1.9.2"), JSON),
        Reply(listing("1.9.3"), JSON),
        Reply(b"", JSON),
    ]
    assert Fetching(web, tmp_path).fetch() == ALL
    offsets = [path.partition("offset=")[2] for path, _ in web.requests if "?" in path]
    assert offsets == ["0", "2", "3"]


def test_a_server_that_knows_no_pages(web, tmp_path):
    web.wrong[f"{SERIES_PATH}/instances"] = [Reply(listing(*UIDS), JSON) for _ in range(9)]
    assert Fetching(web, tmp_path).fetch() == ALL


def test_deflated(web, tmp_path):
    web.files = {"1.9.1": instance("1.9.1", syntax=DeflatedExplicitVRLittleEndian)}
    assert Fetching(web, tmp_path).fetch() == ["1.9.1.dcm"]


# --- bad weather --------------------------------------------------------------------------


def test_busy(web, tmp_path):
    web.wrong[f"{SERIES_PATH}/instances"] = [
        Reply(status=503),
        Reply(status=429, headers={"Retry-After": "7"}),
    ]
    web.wrong[SERIES_PATH] = [Reply(status=504, headers={"Retry-After": "99999"})]
    fetching = Fetching(web, tmp_path)
    assert fetching.fetch() == ALL
    assert fetching.pauses == [1.0, 7.0, 60.0]


def test_cut_in_the_middle(web, tmp_path):
    body = multipart(*web.files.values())
    web.wrong[SERIES_PATH] = [Reply(body, n_sent=body.index(b"1.9.3") - 50)]
    web.wrong[f"{SERIES_PATH}/instances/1.9.3"] = [Reply(body, n_sent=10), Reply(status=500)]
    fetching = Fetching(web, tmp_path, attempts=4)
    assert fetching.fetch() == ALL
    assert web.paths == ["", *["/instances/1.9.3"] * 3]
    assert fetching.pauses == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("n_missing", [1, 2, 30])
def test_cut_in_the_middle_without_a_length(web, tmp_path, n_missing):
    """The end of the connection is the end of the message, as far as HTTP/1.0 knows."""
    body = multipart(*web.files.values())
    cut = {"Content-Length": "", "Connection": "close"}
    web.wrong[SERIES_PATH] = [Reply(body[:-n_missing], headers=cut)]
    fetching = Fetching(web, tmp_path)
    assert fetching.fetch() == ALL


def test_never_well(web, tmp_path):
    web.wrong[SERIES_PATH] = [Reply(status=503) for _ in range(3)]
    fetching = Fetching(web, tmp_path)
    fails(fetching, "cannot answer now (HTTP 503)", error=WebUnavailableError)
    assert fetching.pauses == [1.0, 2.0]


def test_nobody_there(tmp_path):
    server = Server(f"http://127.0.0.1:{free_port()}/x", limits=Limits(attempts=1))
    with pytest.raises(WebUnavailableError, match=r"does not answer \(Connection refused\)"):
        fetch(server, Resource(server.url, "1.2", "1.3"), tmp_path)


def test_silent(web, tmp_path, monkeypatch):
    over = threading.Event()
    web.wrong[SERIES_PATH] = [Reply(b"x" * 9, n_sent=1, act=lambda handler: over.wait(60))]
    opened = connection._open

    def open_and_hurry(*arguments):
        """Be patient until the answer has begun, however slow the machine is."""
        response = opened(*arguments)
        if arguments[0].endswith(SERIES_PATH):
            response.fp.raw._sock.settimeout(0.3)
        return response

    monkeypatch.setattr(connection, "_open", open_and_hurry)
    fails(Fetching(web, tmp_path, attempts=1), "ended in the middle", error=WebUnavailableError)
    over.set()


def trickle(send):
    """Send bytes until nobody takes them any more, or for five minutes."""
    for _ in range(6000):
        try:
            send(b"x")
        except OSError:
            return
        time.sleep(0.05)


def test_a_body_in_drops(web, tmp_path):
    drops = Reply(b"x" * 200, n_sent=1, act=lambda handler: trickle(handler.wfile.write))
    web.wrong[SERIES_PATH] = [drops]
    start = time.monotonic()
    fails(
        Fetching(web, tmp_path, request_s=0.4, attempts=1),
        "took longer than 0.4 s",
        error=WebUnavailableError,
    )
    assert time.monotonic() - start < 200


def test_a_header_in_drops(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            trickle(connection.sendall)

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = Server(url, limits=Limits(attempts=1, request_s=0.4))
        with pytest.raises(WebUnavailableError, match=r"took longer than 0\.4 s"):
            fetch(server, Resource(url, "1.2", "1.3"), tmp_path)


# --- refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "the token is missing or wrong"),
        (403, "the token does not allow it"),
        (404, "there is no such thing"),
        (406, "it cannot give DICOM as stored"),
        (410, "correct the address"),
        (302, "it sends elsewhere"),
    ],
)
def test_refused(web, tmp_path, status, words):
    web.wrong[SERIES_PATH] = [Reply(status=status, headers={"Location": f"{web.url}/other"})]
    fetching = Fetching(web, tmp_path)
    fails(fetching, f"/series/{SERIES} refuses (HTTP {status})", words, error=WebRefusedError)
    assert fetching.pauses == []


def test_token(web, tmp_path):
    token = tmp_path / "token"
    token.write_text("geheim\n")
    server = Server(web.url, token_file=token)
    fetch(server, Resource(web.url, STUDY, SERIES), tmp_path / "out")
    assert {headers["Authorization"] for _, headers in web.requests} == {"Bearer geheim"}
    token.write_text("two\nlines")
    with pytest.raises(WebRefusedError, match="holds no token; write one line"):
        Server(web.url, token_file=token)
    with pytest.raises(WebRefusedError, match="The token cannot be read"):
        Server(web.url, token_file=tmp_path / "none")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of its own signing, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    command = [require_tool("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


def test_tls(certificate, tmp_path):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    with run_web_server(*UIDS, tls=context) as web:
        url = web.url.replace("http:", "https:")
        resource = Resource(url, STUDY, SERIES)
        fetch(Server(url, ca=certificate[0]), resource, tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ALL
        n_requests = len(web.requests)
        with pytest.raises(WebRefusedError, match=r"certificate of .* is not trusted; name"):
            fetch(Server(url), resource, tmp_path / "other")
        assert len(web.requests) == n_requests


def test_certificates_that_cannot_be_read(tmp_path):
    (tmp_path / "ca.pem").write_text("garbage")
    for name in ("none", "ca.pem"):
        with pytest.raises(WebRefusedError, match="is no file of certificates"):
            Server("https://host/x", ca=tmp_path / name)


def test_no_tls_where_it_is_expected(web, tmp_path):
    url = web.url.replace("http:", "https:")
    with pytest.raises(WebUnavailableError, match="does not answer"):
        fetch(Server(url, limits=Limits(attempts=1)), Resource(url, "1.2", "1.3"), tmp_path)


def test_no_http(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet():
            with listener.accept()[0] as client:
                client.recv(1000)
                client.sendall(b"220 mail\r\n\r\n")

        threading.Thread(target=greet, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(WebAnswerError, match="does not speak HTTP"):
            fetch(Server(url), Resource(url, "1.2", "1.3"), tmp_path)


# --- wrong answers ------------------------------------------------------------------------


def other(uid="1.9.1", **changes) -> bytes:
    return instance(uid, **changes)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([other(series="1.5")], "sends instance 1.9.1 for series"),
        ([other(study="1.5")], "sends instance 1.9.1 for series"),
        ([other("1.9.4")], "sends instance 1.9.4, which was not asked for, or twice"),
        ([other(), other()], "sends instance 1.9.1, which was not asked for, or twice"),
        ([b"no DICOM"], "that is no DICOM file"),
        ([other()[:200]], "that is no DICOM file"),
        ([other().replace(b"1.9.1\0", b"../../")], "has no usable UID"),
        ([b""], "that is no DICOM file"),
    ],
)
def test_wrong_instances(web, tmp_path, files, words):
    web.wrong[SERIES_PATH] = [Reply(multipart(*files))]
    fails(Fetching(web, tmp_path / "out"), words)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_series_that_lacks_an_instance(web, tmp_path):
    web.wrong[SERIES_PATH] = [Reply(multipart(web.files["1.9.1"], web.files["1.9.3"]))]
    assert Fetching(web, tmp_path).fetch() == ALL
    assert web.paths == ["", "/instances/1.9.2"]


def test_an_instance_that_never_comes(web, tmp_path):
    web.wrong[SERIES_PATH] = [Reply(multipart())]
    web.wrong[f"{SERIES_PATH}/instances/1.9.1"] = [Reply(multipart())]
    fails(Fetching(web, tmp_path), "lists instance 1.9.1 and does not send it")


def test_another_class(web, tmp_path):
    web.wrong[f"{SERIES_PATH}/instances"] = [Reply(listing("1.9.1", sop_class="1.2"), JSON)]
    web.wrong[SERIES_PATH] = [Reply(multipart(web.files["1.9.1"]))]
    fails(Fetching(web, tmp_path), "lists instance 1.9.1 as of another SOP class")


@pytest.mark.parametrize(
    "reply",
    [
        Reply(b"<html>", "text/html"),
        Reply(b"{}", JSON),
        Reply(b"--\r\n", "multipart/related"),
        Reply(b"--\r\n", "multipart/related; boundary=" + "x" * 99),
        Reply(b"", ""),
    ],
)
def test_something_else(web, tmp_path, reply):
    web.wrong[SERIES_PATH] = [reply]
    fails(Fetching(web, tmp_path), "answers with something else than DICOM")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (multipart(b"{}", media_type="application/json"), "a part that is no DICOM"),
        (b"x" * 200_000, "parts that are not marked as such"),
        (b"--a+b\r\n" + b"x" * 300_000, "a part whose header has no end"),
    ],
)
def test_wrong_parts(web, tmp_path, body, words):
    web.wrong[SERIES_PATH] = [Reply(body)]
    fails(Fetching(web, tmp_path), words)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"{}",
        b"[1]",
        b"[" * 100_000,
        b"\xff\xfe",
        json.dumps([{"00080018": []}]).encode(),
    ],
)
def test_wrong_lists(web, tmp_path, body):
    web.wrong[f"{SERIES_PATH}/instances"] = [Reply(body, JSON)]
    with pytest.raises(WebAnswerError, match=r"than DICOM JSON|without a UID"):
        Fetching(web, tmp_path).fetch()


@pytest.mark.parametrize("uid", ["../../etc/passwd", "/etc/passwd", "1.2/../3", "1" * 65, "", "1."])
def test_paths_instead_of_uids(web, tmp_path, uid):
    web.wrong[f"{SERIES_PATH}/instances"] = [Reply(listing(uid), JSON)]
    fails(Fetching(web, tmp_path), "lists something without a UID")


def test_an_endless_list(web, tmp_path):
    numbers = iter(range(100))
    web.wrong[f"{SERIES_PATH}/instances"] = [
        Reply(listing(*[f"1.8.{next(numbers)}" for _ in range(5)]), JSON) for _ in range(20)
    ]
    fails(Fetching(web, tmp_path, n_results=12), "finds more than 12; ask for less")
    web.wrong[f"{SERIES_PATH}/instances"] = [Reply(b"[" + b" " * 5000, JSON)]
    fails(Fetching(web, tmp_path, page_bytes=4000), "answers without end")


# --- limits -------------------------------------------------------------------------------


def test_too_large(web, tmp_path):
    fails(Fetching(web, tmp_path, instance_bytes=300), "An instance of series", "0.0003 MB")
    fails(Fetching(web, tmp_path, series_bytes=900), f"Series {SERIES} is larger than 0.0009 MB")


def test_a_bomb(web, tmp_path):
    """Five kilobytes that inflate to five megabytes."""
    web.files = {"1.9.1": instance("1.9.1", syntax=DeflatedExplicitVRLittleEndian, n_bytes=10_000)}
    fails(Fetching(web, tmp_path, instance_bytes=5000), "inflates to more than 0.005 MB")


def test_garbage_that_should_be_deflated(web, tmp_path):
    data = instance("1.9.1", syntax=DeflatedExplicitVRLittleEndian)
    meta = pydicom.dcmread(io.BytesIO(data)).file_meta
    start = 144 + meta.FileMetaInformationGroupLength
    assert zlib.decompress(data[start:], -15)
    web.wrong[SERIES_PATH] = [Reply(multipart(data[:start] + b"\xff" * 50))]
    fails(Fetching(web, tmp_path), "that is no DICOM file")


def test_a_folder_that_cannot_be_written(web, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputNotWritableError, match="cannot be written"):
        Fetching(web, tmp_path / "file").fetch()
