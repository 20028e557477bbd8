"""Read a weights file: memory-mapped, tensors only, and exactly the tensors that are expected."""

import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oncofm.errors import WeightsInvalidError

Expected = Mapping[str, tuple[torch.Size, torch.dtype]]
"""Shape and type that each tensor of a network must have."""

_N_NAMED = 3
"""So many offending keys are named in a sentence."""

_HEAD_PREFIX = "model.heads."
_TRUNK_PREFIXES = ("model.trunk.", "module.")


def read_checkpoint(path: Path, expected: Expected) -> dict[str, Tensor]:
    """Read the encoder's tensors from a weights file.

    Accepted are PyTorch files and safetensors; in them ``trunk_state_dict`` (the published
    layout), a Lightning checkpoint's ``state_dict`` with ``model.trunk.`` before each key, or the
    bare state dict, also with ``module.`` before each key. Projection heads beside the encoder
    (``head_state_dict``, ``model.heads.``) are left aside.

    Parameters
    ----------
    path : pathlib.Path
        The file. What it is shows in its bytes, not in its suffix.
    expected : mapping
        Shape and type of every tensor; one more or less is an error.

    Returns
    -------
    dict of str to torch.Tensor
        In the order of `expected`. The tensors are private views into the file: writing to them
        changes memory, not the file. No two of them overlap.

    Raises
    ------
    WeightsInvalidError
        If the file holds anything else, is damaged, or needs code to be unpickled.
    """
    state = _find_state_dict(path, _load(path))
    _compare(path, state, expected)
    _refuse_non_finite(path, state)
    return _separate({key: state[key] for key in expected})


def _load(path: Path) -> Any:
    with path.open("rb") as stream:
        start = stream.read(16)
    if not start:
        raise _invalid(path, "is empty")
    if start[8:9] == b"{":  # after the header's length in 8 bytes
        return _load_safetensors(path)
    if start.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise _invalid(path, "is truncated")
    if not start.startswith((b"PK", b"\x80")):  # a zip archive or, before PyTorch 1.6, pickles
        raise _invalid(path, "is neither a PyTorch nor a safetensors file")
    try:
        # Only an archive can be mapped.
        mapped = zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise WeightsInvalidError(
            f"{path} is damaged, or needs code to be unpickled, which may do anything and is "
            f"refused; save its state dict alone, or get the published file with `oncofm weights "
            f"fetch`."
        ) from error
    except (RuntimeError, ValueError, EOFError, LookupError, AttributeError) as error:
        raise _invalid(path, "is damaged or no PyTorch file") from error


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _invalid(path, "is a damaged safetensors file") from error


def _find_state_dict(path: Path, content: Any) -> dict[str, Any]:
    """Pick the encoder's tensors out of the known layouts, under the encoder's own names."""
    state = content
    for layout in ("trunk_state_dict", "state_dict"):
        if isinstance(content, dict) and layout in content:
            state = content[layout]
            break
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise _invalid(path, "holds no state dict")
    state = {key: value for key, value in state.items() if not key.startswith(_HEAD_PREFIX)}
    for prefix in _TRUNK_PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _compare(path: Path, state: Mapping[str, Any], expected: Expected) -> None:
    faults = []
    if missing := [key for key in expected if key not in state]:
        faults.append(f"{len(missing)} tensors are missing ({_some(missing)})")
    if extra := [key for key in state if key not in expected]:
        faults.append(f"{len(extra)} are unexpected ({_some(extra)})")
    shapes, types = [], []
    for key, value in state.items():
        if key not in expected:
            continue
        shape, dtype = expected[key]
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            types.append(f"{key} is no plain tensor")
        elif value.shape != shape:
            shapes.append(f"{key} {tuple(value.shape)} instead of {tuple(shape)}")
        elif value.dtype != dtype:
            types.append(f"{key} {_word(value.dtype)} instead of {_word(dtype)}")
    if shapes:
        faults.append(f"{len(shapes)} have another shape ({_some(shapes)})")
    if types:
        faults.append(f"{len(types)} have another type ({_some(types)})")
    if faults:
        raise _invalid(path, f"does not hold this encoder's weights: {'; '.join(faults)}")


def _refuse_non_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    bad = []
    for key, tensor in state.items():
        if tensor.is_floating_point():
            low, high = torch.aminmax(tensor)  # one pass; NaN wins over every number
            if not (low.isfinite() and high.isfinite()):
                bad.append(key)
    if bad:
        raise _invalid(path, f"holds infinite or NaN values in {len(bad)} tensors ({_some(bad)})")


def _separate(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors that share memory with another, or lie scattered in it, memory of their own."""
    end = 0
    for key, tensor in sorted(state.items(), key=lambda item: item[1].data_ptr()):
        if tensor.data_ptr() < end or not tensor.is_contiguous():
            state[key] = tensor.clone(memory_format=torch.contiguous_format)
        else:
            end = tensor.data_ptr() + tensor.nbytes
    return state


def _invalid(path: Path, what: str) -> WeightsInvalidError:
    return WeightsInvalidError(
        f"{path} {what}; get the published file with `oncofm weights fetch`."
    )


def _some(words: Iterable[str]) -> str:
    words = list(words)
    return ", ".join(words[:_N_NAMED]) + (", ..." if len(words) > _N_NAMED else "")


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
