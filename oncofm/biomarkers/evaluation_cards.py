"""Cards of heads that are evaluated: read without the arrays, and matched with predictions."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from oncofm.biomarkers.card import CARD_FILE, HeadCard, read_card
from oncofm.errors import EvaluationError, HeadUnknownError
from oncofm.resources import resource_dir


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
    folders = [folder for folder in folders if (folder / CARD_FILE).is_file()]
    if len(folders) != 1:
        raise HeadUnknownError(
            f"There are {len(folders)} cards of a head {name!r}; name a folder that holds "
            f"{CARD_FILE}, as a path."
        )
    return read_card(folders[0])


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


def _shipped(name: str) -> list[Path]:
    return [folder for folder in resource_dir("models").glob("*/heads/*") if folder.name == name]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
