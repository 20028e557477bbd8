"""A patch to a feature vector: networks, weights, device and precision, batching."""

from typing import TYPE_CHECKING

__all__ = ["load_encoder"]

if TYPE_CHECKING:
    from oncofm.encoders.torch_engine import load_encoder


def __getattr__(name: str) -> object:
    # Resolved on first use: torch takes seconds to import, and looking for weights needs none.
    if name == "load_encoder":
        from oncofm.encoders.threads import prepare_threads

        prepare_threads()
        from oncofm.encoders.torch_engine import load_encoder

        return load_encoder
    raise AttributeError(f"module 'oncofm.encoders' has no attribute {name!r}")
