"""What more training cases are worth: heads that differ in how many cases they were fitted to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from oncofm.biomarkers.bootstrap import Estimate
from oncofm.biomarkers.card import HeadCard

FRACTION = "fraction"
"""Setting of a card: the share of the training cases that the head was fitted to."""


@dataclass(frozen=True)
class CurvePoint:
    """A head on a learning curve.

    Attributes
    ----------
    head : str
        Its name.
    n : int
        Cases it was fitted to.
    fraction : float or None
        Share of the training cases, where its card says so.
    value, low, high : float
        The statistic on the cases of the evaluation, and its interval.
    """

    head: str
    n: int
    fraction: float | None
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LearningCurve:
    """Heads that predict the same from the same features.

    Attributes
    ----------
    title : str
        What they predict.
    model, kind : str
        Encoder, and kind of the heads.
    statistics : dict of str to tuple of CurvePoint
        Of each statistic the heads, by number of cases.
    """

    title: str
    model: str
    kind: str
    statistics: dict[str, tuple[CurvePoint, ...]]


def learning_curves(
    metrics: Mapping[str, Mapping[str, Estimate]], cards: Mapping[str, HeadCard]
) -> tuple[LearningCurve, ...]:
    """Order heads by the number of cases that they were fitted to.

    Heads are on one curve if their cards have the same title, task, kind, model, weights and
    profile: what is left to differ is the training. Heads of the same size stay beside each
    other, as of repeated draws. A curve needs two sizes; cards that do not say what the head was
    fitted to are on none.

    Parameters
    ----------
    metrics : mapping of str to mapping
        Of each head its statistics, on the same cases.
    cards : mapping of str to HeadCard
        Of some of those heads.

    Returns
    -------
    tuple of LearningCurve
        In the order of the cards; none if no two heads differ in size.
    """
    curves: dict[tuple[Any, ...], list[HeadCard]] = {}
    for card in cards.values():
        if card.training is not None:
            curves.setdefault(_same(card), []).append(card)
    return tuple(
        _curve(of_curve, metrics)
        for of_curve in curves.values()
        if len({_size(card) for card in of_curve}) > 1
    )


def _same(card: HeadCard) -> tuple[Any, ...]:
    return card.title, card.task, card.kind, card.model, card.weights_sha256, card.profile


def _size(card: HeadCard) -> int:
    assert card.training is not None
    return card.training.n


def _curve(cards: list[HeadCard], metrics: Mapping[str, Mapping[str, Estimate]]) -> LearningCurve:
    ordered = sorted(cards, key=lambda card: (_size(card), card.name))
    first = ordered[0]
    return LearningCurve(
        title=first.title,
        model=first.model,
        kind=first.kind,
        statistics={
            statistic: tuple(_point(card, metrics[card.name][statistic]) for card in ordered)
            for statistic in metrics[first.name]
        },
    )


def _point(card: HeadCard, estimate: Estimate) -> CurvePoint:
    assert card.training is not None
    return CurvePoint(
        head=card.name,
        n=card.training.n,
        fraction=card.training.settings.get(FRACTION),
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
    )
