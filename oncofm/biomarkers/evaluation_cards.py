"""Cards of heads that are evaluated: read without the arrays, and matched with predictions."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import yaml

from oncofm.biomarkers.card import HeadCard
from oncofm.biomarkers.head import CARD_FILE
from oncofm.errors import EvaluationError, HeadInvalidError, HeadUnknownError
from oncofm.resources import resource_dir

_MAX_CARD_BYTES = 1 << 20


def load_card(name: str) -> HeadCard:
    """Load the card of a head by name, or by the path of its folder; the arrays may be absent.

    Parameters
    ----------
    name : str
        A head that comes with a model, or a path that holds a slash.

    Raises
    ------
    HeadUnknownError
        If there is none of that name, or several models have one.
    HeadInvalidError
        If the card cannot be used.
    """
    folders = [Path(name)] if "/" in name else _shipped(name)
    paths = [folder / CARD_FILE for folder in folders if (folder / CARD_FILE).is_file()]
    if len(paths) != 1:
        raise HeadUnknownError(
            f"There are {len(paths)} cards of a head {name!r}; name a folder that holds "
            f"{CARD_FILE}, as a path."
        )
    try:
        with paths[0].open(encoding="utf-8") as stream:
            return HeadCard(**yaml.safe_load(stream.read(_MAX_CARD_BYTES)))
    except (  # also ValidationError and text that is not UTF-8, which are ValueErrors
        OSError,
        TypeError,
        ValueError,
        RecursionError,
        yaml.YAMLError,
    ) as error:
        problem = " ".join(str(error).split())
        raise HeadInvalidError(f"The card {paths[0]} cannot be used: {problem}.") from error


def cards_by_head(
    cards: Sequence[HeadCard], heads: Iterable[str], outputs: tuple[str, ...] | None
) -> dict[str, HeadCard]:
    """Match cards with the heads of the predictions.

    Parameters
    ----------
    cards : sequence of HeadCard
        Of some of the heads.
    heads : iterable of str
        Names of the heads in the predictions.
    outputs : tuple of str or None
        Classes of the predictions, or None for risks.

    Raises
    ------
    EvaluationError
        If a card is of no head, of a head that has one, or of a head that predicts something else.
    """
    known = list(heads)
    found: dict[str, HeadCard] = {}
    for card in cards:
        if card.name not in known:
            raise EvaluationError(
                f"The predictions have no head {card.name!r}, whose card was given; they have "
                f"{', '.join(map(repr, known))}."
            )
        if card.name in found:
            raise EvaluationError(
                f"Two cards of a head {card.name!r} were given; give each head a name of its own."
            )
        if outputs is None and card.kind != "cox":
            raise EvaluationError(
                f"The card of head {card.name!r} is that of a {card.kind} head, but the "
                "predictions are risks; give the card of the head that made them."
            )
        if outputs is not None and card.classes != outputs:
            raise EvaluationError(
                f"The card of head {card.name!r} has the classes {_listed(card.classes)}, the "
                f"predictions {_listed(outputs)}; give the card of the head that made them."
            )
        found[card.name] = card
    return found


def is_high_risk(card: HeadCard, values: np.ndarray) -> np.ndarray:
    """Split at the threshold of a card as `oncofm.biomarkers.head.Head.risk_groups` does.

    Parameters
    ----------
    card : HeadCard
        With a threshold.
    values : numpy.ndarray
        Shape (n,): probability of the second class, or risk.

    Returns
    -------
    numpy.ndarray
        Shape (n,) bool; what equals the threshold is of low risk.
    """
    assert card.threshold is not None
    if card.direction == "higher_is_worse":
        return values > card.threshold.value
    return values < card.threshold.value


def _shipped(name: str) -> list[Path]:
    return [folder for folder in resource_dir("models").glob("*/heads/*") if folder.name == name]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
