"""What the names of the precisions mean to torch."""

import contextlib
from collections.abc import Iterator

import torch

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
"""Of the weights and of the maps between products."""


@contextlib.contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Compute as a precision promises and in the same way every time, whatever the caller has set.

    Parameters
    ----------
    precision : str
        ``fp32``: float32 is float32. ``tf32``, ``bf16``: on a GPU, products of float32 round their
        factors to TF32 (10 bits). Sums are float32 in all of them.
    """
    exact = precision == "fp32"
    before = torch.get_float32_matmul_precision()
    cublas = torch.backends.cuda.matmul
    reduced = cublas.allow_bf16_reduced_precision_reduction
    torch.set_float32_matmul_precision("highest" if exact else "high")
    cublas.allow_bf16_reduced_precision_reduction = False
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
        cublas.allow_bf16_reduced_precision_reduction = reduced
