"""Cards beside predictions: read without arrays, matched, and split as their heads split."""

import numpy as np
import pytest
import yaml
from cards import head_card, risk_card, split_at
from heads import write_head

from oncofm.biomarkers.evaluation_cards import cards_by_head, load_card
from oncofm.biomarkers.head import CARD_FILE, Head, Layer, load_head
from oncofm.errors import EvaluationError, HeadInvalidError, HeadUnknownError


def test_the_card_is_that_of_the_head_and_needs_no_arrays(tmp_path):
    write_head(tmp_path / "h", **split_at(0.3))
    expected = load_head(str(tmp_path / "h"), "fmcib").card
    (tmp_path / "h" / "head.safetensors").unlink()
    assert load_card(str(tmp_path / "h")) == expected


def test_a_head_that_comes_with_a_model(tmp_path, monkeypatch):
    folder = tmp_path / "fmcib" / "heads"
    folder.mkdir(parents=True)
    write_head(folder / "shipped")
    monkeypatch.setattr("oncofm.biomarkers.evaluation_cards.resource_dir", lambda name: tmp_path)
    assert load_card("shipped").name == "shipped"
    with pytest.raises(HeadUnknownError, match="There are 0 cards of a head 'ship\\*'"):
        load_card("ship*")


def test_an_absent_card(tmp_path):
    with pytest.raises(HeadUnknownError, match=r"0 cards of a head .*holds head\.yml, as a path"):
        load_card(str(tmp_path))


@pytest.mark.parametrize(
    "content",
    [b"", b"[", b"- 1", b"name: h", b"\xff", b"1: 2", b"[" * 3000],
)
def test_cards_that_cannot_be_used(tmp_path, content):
    (tmp_path / CARD_FILE).write_bytes(content)
    with pytest.raises(HeadInvalidError, match=r"^Head .* cannot be used: .*\.$"):
        load_card(str(tmp_path))


def test_a_card_of_something_else(tmp_path):
    (tmp_path / CARD_FILE).write_text(yaml.safe_dump({"name": "h", "classes": 3}))
    with pytest.raises(HeadInvalidError):
        load_card(str(tmp_path))


@pytest.mark.parametrize(
    ("cards", "outputs", "sentence"),
    [
        ([head_card("z")], ("no", "yes"), "have no head 'z', .*; they have 'a', 'b'"),
        ([head_card("a")] * 2, ("no", "yes"), "Two cards of a head 'a'"),
        ([head_card("a")], ("yes", "no"), "has the classes 'no', 'yes', the predictions 'yes', "),
        ([risk_card("a")], ("no", "yes"), "has the classes none"),
        ([head_card("a")], None, "that of a logistic head, but the predictions are risks"),
    ],
)
def test_cards_that_do_not_fit(cards, outputs, sentence):
    with pytest.raises(EvaluationError, match=sentence):
        cards_by_head(cards, ["a", "b"], outputs)


def test_cards_that_fit():
    card = head_card("b")
    assert cards_by_head([card], ["a", "b"], ("no", "yes")) == {"b": card}
    assert cards_by_head([], ["a", "b"], None) == {}


@pytest.mark.parametrize("direction", ["higher_is_worse", "higher_is_better"])
def test_the_split_is_that_of_the_head(direction):
    values = np.array([-1, 0.5, np.nextafter(0.5, 1), np.nextafter(0.5, 0), 2])
    card = risk_card("h", n_features=1, **split_at(0.5, direction))
    head = Head(card, (Layer(np.ones((1, 1)), np.zeros(1)),))
    expected = [group == "high" for group in head.risk_groups(head.predict(values[:, None]))]
    assert card.is_high_risk(values).tolist() == expected
