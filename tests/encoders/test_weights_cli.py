"""``oncofm weights``, with a network of one tensor and a server on the loopback interface."""

import functools
import hashlib
import http.server
import threading

import pytest
import torch
from typer.testing import CliRunner

from oncofm.cli.weights import app
from oncofm.encoders import download, fmcib
from oncofm.errors import (
    DownloadError,
    ModelUnknownError,
    WeightsChecksumError,
    WeightsInvalidError,
    WeightsMissingError,
)

EXPECTED = {"conv1.weight": (torch.Size([2, 3]), torch.float32)}
FILE = "model_weights.torch"


def run(*arguments: object):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty cache, a small network, and no way out but to the loopback interface."""
    monkeypatch.delenv("ONCOFM_WEIGHTS", raising=False)
    monkeypatch.setenv("ONCOFM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fmcib, "expected_tensors", lambda: EXPECTED)
    monkeypatch.setattr(download, "_PAUSE_S", 0.0)
    return tmp_path / "home" / "fmcib"


@pytest.fixture
def published(tmp_path):
    """A valid file on a server: its bytes and its address."""
    folder = tmp_path / "server"
    folder.mkdir()
    torch.save({"trunk_state_dict": {"conv1.weight": torch.ones(2, 3)}}, folder / FILE)
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder / FILE, f"http://127.0.0.1:{server.server_port}/{FILE}"
        server.shutdown()
        thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_fetch_verify_list(published, home):
    source, url = published

    fetched = run("fetch", "--url", url)
    assert fetched.exit_code == 0
    assert (home / FILE).read_bytes() == source.read_bytes()
    assert (home / f"{FILE}.sha256").read_text().split() == [sha256(source), FILE]
    assert sha256(source) in fetched.stdout
    assert "CC-BY-NC-4.0" in fetched.stdout
    assert "Research use only" in fetched.stdout

    verified = run("verify")
    assert verified.exit_code == 0
    assert f"{home / FILE} is valid.\nSHA-256 {sha256(source)}" in verified.stdout

    listed = run("list")
    assert listed.exit_code == 0
    assert f"file     {home / FILE}" in listed.stdout
    assert f"{source.stat().st_size:,} bytes" in listed.stdout
    assert sha256(source) in listed.stdout
    assert "CC-BY-NC-4.0" in listed.stdout


def test_fetch_into_a_folder(published, tmp_path, home):
    _, url = published

    assert run("fetch", "fmcib", "--url", url, "--to", tmp_path / "image").exit_code == 0

    assert (tmp_path / "image" / FILE).is_file()
    assert not home.exists()


def test_a_valid_file_is_not_fetched_again(published):
    _, url = published
    assert run("fetch", "--url", url).exit_code == 0

    again = run("fetch", "--url", "http://127.0.0.1:9/nobody-there")

    assert again.exit_code == 0
    assert "already there and valid" in again.stdout


def test_a_damaged_file_is_fetched_again(published, home):
    source, url = published
    home.mkdir(parents=True)
    (home / FILE).write_bytes(b"damaged")

    again = run("fetch", "--url", url)

    assert again.exit_code == 0
    assert "Fetching again: " in again.stderr
    assert (home / FILE).read_bytes() == source.read_bytes()


def test_fetch_compares_the_checksum(published, home):
    source, url = published

    refused = run("fetch", "--url", url, "--sha256", "0" * 64)
    assert isinstance(refused.exception, WeightsChecksumError)
    assert refused.exit_code == 1
    assert list(home.iterdir()) == []

    assert run("fetch", "--url", url, "--sha256", sha256(source)).exit_code == 0


def test_fetch_keeps_nothing_that_is_no_weights_file(published, home):
    source, url = published
    source.write_bytes(b"<html>please sign in</html>")

    assert isinstance(run("fetch", "--url", url).exception, WeightsInvalidError)
    assert list(home.iterdir()) == []


def test_fetch_from_nowhere(published):
    _, url = published
    assert isinstance(run("fetch", "--url", url + "-gone").exception, DownloadError)


def test_verify_refuses(tmp_path):
    path = tmp_path / "mine.torch"
    torch.save({"conv1.weight": torch.ones(2, 4)}, path)
    assert isinstance(run("verify", path).exception, WeightsInvalidError)

    torch.save({"conv1.weight": torch.ones(2, 3)}, path)
    assert run("verify", path).exit_code == 0
    assert list(tmp_path.iterdir()) == [path]  # nothing is written beside a user's own file
    assert isinstance(run("verify", path, "--sha256", "1" * 64).exception, WeightsChecksumError)


def test_without_weights():
    assert isinstance(run("verify").exception, WeightsMissingError)
    assert isinstance(run("prepare").exception, WeightsMissingError)
    listed = run("list")
    assert listed.exit_code == 0
    assert "not found; about 738,451,713 bytes to fetch" in listed.stdout


@pytest.mark.parametrize("cosine", [0.99999, None])
def test_prepare(monkeypatch, tmp_path, cosine):
    from oncofm.encoders import prepare
    from oncofm.encoders.prepared import Note, PreparedModel

    asked = []
    shas = dict.fromkeys(("weights_sha256", "xml_sha256", "bin_sha256"), "0" * 64)
    versions = {"oncofm": "0", "openvino": "0", "torch": "0"}
    facts = {"weights_bytes": 1, "weights_modified_s": 1, "largest_difference": 1.24e-5}
    note = Note(model="fmcib", smallest_cosine_bf16=cosine, **shas, **versions, **facts)

    def pretend(card, weights, sha256):
        asked.append((card.name, weights, sha256))
        return PreparedModel(tmp_path / "mine.torch.openvino", note)

    monkeypatch.setattr(prepare, "prepare", pretend)
    path = tmp_path / "mine.torch"
    path.write_bytes(b"weights")

    ended = run("prepare", "--weights", path, "--sha256", "a" * 64)

    assert ended.exit_code == 0
    assert asked == [("fmcib", path, "a" * 64)]
    assert ended.stdout.startswith(f"{path}.openvino\nLargest difference to torch 1.2e-05\n")
    assert ("cosine in bf16 0.99999" in ended.stdout) == (cosine is not None)


def test_list_shows_what_is_prepared(published, home):
    _, url = published
    fetched = run("fetch", "--url", url)
    assert "`oncofm weights prepare`" in fetched.stdout
    assert "prepared no" in run("list").stdout

    folder = home / f"{FILE}.openvino"
    folder.mkdir()
    (folder / "prepared.json").write_text("{}")
    assert f"prepared {folder}" in run("list").stdout


def test_an_unknown_model():
    assert isinstance(run("fetch", "gpt").exception, ModelUnknownError)
    assert isinstance(run("prepare", "gpt").exception, ModelUnknownError)
