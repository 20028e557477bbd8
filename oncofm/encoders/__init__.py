"""A patch to a feature vector: networks, weights, device and precision, batching."""

import os
from typing import TYPE_CHECKING

__all__ = ["load_encoder"]

if TYPE_CHECKING:
    from oncofm.encoders.torch_engine import load_encoder


def __getattr__(name: str) -> object:
    # Resolved on first use: torch takes seconds to import, and looking for weights needs none.
    if name == "load_encoder":
        # Threads that wait must not spin: with another busy process (or our own readers) on the
        # same cores, torch gets two to four times slower. Alone it makes no difference. It
        # counts only before torch is first imported; a user's own choice stands.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from oncofm.encoders.torch_engine import load_encoder

        return load_encoder
    raise AttributeError(f"module 'oncofm.encoders' has no attribute {name!r}")
