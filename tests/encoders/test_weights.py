"""Finding weights, their checksums, and the cards of the models."""

import hashlib
from dataclasses import replace

import pytest

from oncofm.encoders import weights as module
from oncofm.encoders.card import load_model_card, model_names
from oncofm.encoders.weights import (
    cached_weights,
    check_sha256,
    find_weights,
    record_sha256,
    recorded_sha256,
    sha256_of,
)
from oncofm.errors import ModelUnknownError, WeightsChecksumError, WeightsMissingError


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Four places where weights may lie, none of them there yet."""
    monkeypatch.delenv("ONCOFM_WEIGHTS", raising=False)
    monkeypatch.setenv("ONCOFM_HOME", str(tmp_path / "home"))
    card = load_model_card("fmcib")
    monkeypatch.setattr(module, "resource_dir", lambda name: tmp_path / name)
    return {
        "explicit": tmp_path / "mine.torch",
        "variable": tmp_path / "site.torch",
        "cache": tmp_path / "home" / "fmcib" / card.file,
        "models": tmp_path / "models" / "fmcib" / card.file,
    }


def put(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")


def test_the_first_place_counts(places, monkeypatch):
    for path in places.values():
        put(path)
    monkeypatch.setenv("ONCOFM_WEIGHTS", str(places["variable"]))

    assert find_weights("fmcib", places["explicit"]) == places["explicit"]
    assert find_weights("fmcib", None) == places["variable"]
    monkeypatch.delenv("ONCOFM_WEIGHTS")
    assert find_weights("fmcib", None) == places["cache"]
    places["cache"].unlink()
    assert find_weights("fmcib", None) == places["models"]


def test_without_weights_the_sentence_says_how_to_get_them(places):
    with pytest.raises(WeightsMissingError) as missing:
        find_weights("fmcib", None)

    sentence = str(missing.value)
    assert str(places["cache"].parent) in sentence
    assert "`oncofm weights fetch fmcib`" in sentence
    assert "`--weights FILE`" in sentence


def test_a_named_file_that_is_not_there_is_not_replaced_by_another(places, monkeypatch):
    put(places["cache"])
    with pytest.raises(WeightsMissingError, match=r"mine.torch \(--weights\) is not a file"):
        find_weights("fmcib", places["explicit"])
    monkeypatch.setenv("ONCOFM_WEIGHTS", str(places["variable"]))
    with pytest.raises(WeightsMissingError, match=r"site.torch \(ONCOFM_WEIGHTS\) is not a file"):
        find_weights("fmcib", None)


def test_the_cache_folder(monkeypatch, tmp_path):
    card = load_model_card("fmcib")
    monkeypatch.setenv("ONCOFM_HOME", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    monkeypatch.setenv("HOME", str(tmp_path / "c"))

    assert cached_weights(card) == tmp_path / "a" / "fmcib" / card.file
    monkeypatch.delenv("ONCOFM_HOME")
    assert cached_weights(card) == tmp_path / "b" / "oncofm" / "fmcib" / card.file
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cached_weights(card) == tmp_path / "c" / ".cache" / "oncofm" / "fmcib" / card.file


def test_checksums(tmp_path):
    path = tmp_path / "weights.torch"
    path.write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()

    assert sha256_of(path) == sha256
    assert recorded_sha256(path) is None
    record_sha256(path, sha256)
    assert recorded_sha256(path) == sha256
    assert (tmp_path / "weights.torch.sha256").read_text() == f"{sha256}  weights.torch\n"


def test_every_known_checksum_must_agree(tmp_path):
    path = tmp_path / "weights.torch"
    card = load_model_card("fmcib")
    right, wrong = "a" * 64, "b" * 64

    check_sha256(path, right, card, None)
    check_sha256(path, right, card, right.upper() + "\n")
    with pytest.raises(WeightsChecksumError, match=f"but the expected one is {wrong}"):
        check_sha256(path, right, card, wrong)
    with pytest.raises(WeightsChecksumError, match=r"but the one in fmcib/model\.yml is"):
        check_sha256(path, right, replace(card, sha256=wrong), right)
    record_sha256(path, wrong)
    with pytest.raises(WeightsChecksumError, match=r"recorded in weights\.torch\.sha256 is"):
        check_sha256(path, right, card, None)


def test_the_card_of_fmcib():
    card = load_model_card("fmcib")

    assert model_names() == ["fmcib"]
    assert card.name == "fmcib"
    assert card.url.startswith("https://zenodo.org/records/10528450/files/model_weights.torch")
    assert card.sha256 is None
    assert (card.n_features, card.patch_size, card.profile) == (4096, (50, 50, 50), "mhub")
    assert card.licence == "CC-BY-NC-4.0"
    assert "Research use only" in card.licence_note
    assert "Nature Machine Intelligence" in card.citation


def test_an_unknown_model():
    with pytest.raises(ModelUnknownError, match=r"Model \.\./fmcib is unknown; known are: fmcib"):
        load_model_card("../fmcib")
