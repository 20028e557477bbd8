"""Cards of heads that have no arrays."""

from typing import Any

from oncofm.biomarkers.card import HeadCard

_CARD: dict[str, Any] = {
    "title": "A test",
    "kind": "logistic",
    "classes": ("no", "yes"),
    "model": "fmcib",
    "profile": "mhub",
    "weights_sha256": "any",
    "n_features": 12,
    "intended_use": "tests",
    "licence": "Apache-2.0",
}


def head_card(name: str, **changes: Any) -> HeadCard:
    """Make the card of a head of two classes."""
    return HeadCard.model_validate(_CARD | {"name": name} | changes)


def risk_card(name: str, **changes: Any) -> HeadCard:
    """Make the card of a Cox head."""
    return head_card(name, **({"kind": "cox", "classes": ()} | changes))


def split_at(value: float, direction: str = "higher_is_worse") -> dict[str, Any]:
    """What a card says about its threshold."""
    return {"threshold": {"value": value, "chosen": "in a test"}, "direction": direction}


def trained_on(n: int, **settings: float) -> dict[str, Any]:
    """What a card says about its training."""
    return {"training": {"data": "a test", "n": n, "settings": settings}}
