"""A patch to a feature vector: networks, weights, engine, device and precision, batching."""

from typing import TYPE_CHECKING

__all__ = ["load_encoder"]

if TYPE_CHECKING:
    from oncofm.encoders.load import load_encoder


def __getattr__(name: str) -> object:
    # Resolved on first use: looking for weights needs no numpy, and no more of an engine.
    if name == "load_encoder":
        from oncofm.encoders.load import load_encoder

        return load_encoder
    raise AttributeError(f"module 'oncofm.encoders' has no attribute {name!r}")
