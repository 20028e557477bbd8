"""Turn a published head into one of ours: scikit-learn pickles and PyTorch files."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from oncofm.biomarkers.card import HeadCard
from oncofm.biomarkers.head import Head, Layer
from oncofm.biomarkers.pickle_import import PickledModel, read_pickled_model
from oncofm.biomarkers.save_head import save_head
from oncofm.errors import HeadInvalidError

if TYPE_CHECKING:
    from torch import Tensor

_LAYER_KEY = re.compile(r"(\d{1,3})(?:\.0)?\.(weight|bias)")
_HEADS_PREFIX = "model.heads."


def import_head(path: Path, folder: Path, facts: Mapping[str, Any]) -> Head:
    """Read a published head and write it as one of ours.

    A pickle must be a scikit-learn LogisticRegression; see `read_pickled_model`. A PyTorch file
    (also the legacy format, which is a pickle too: it is told by its magic number) must hold
    linear layers in the order of their numbers: a state dict with ``{i}.weight`` and ``{i}.bias``,
    or ``head_state_dict`` with ``{i}.0.weight``, or a Lightning checkpoint with ``model.heads.``
    before each key. Activations do not show in such a file: ReLU between the layers and none
    after the last is assumed. No scaler is added: the head takes features as the file's head did.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    folder : pathlib.Path
        Where the head is written; its name is the head's name.
    facts : mapping
        What the file does not tell, as `HeadCard` names it: at least title, model, profile,
        weights_sha256, intended_use and licence. `classes` may rename the labels of a pickle;
        a PyTorch file needs it.

    Returns
    -------
    Head
        What was written.

    Raises
    ------
    HeadInvalidError
        If the file cannot be used or needs code to be unpickled, or facts are missing or wrong.
    OutputNotWritableError
        If the folder cannot be written.
    """
    read = _read_torch if _is_torch_file(path) else _read_pickle
    found, layers = read(path)
    if unknown := [key for key in facts if key in ("name", "kind", "n_features", "scaler")]:
        raise HeadInvalidError(f"{', '.join(unknown)} of a head cannot be given; {path} tells it.")
    facts = {"name": folder.name, "n_features": layers[0].weight.shape[-1]} | found | dict(facts)
    try:
        card = HeadCard(**facts)
    except (ValidationError, TypeError) as error:
        problem = " ".join(str(error).split())
        raise HeadInvalidError(f"The card for {path} cannot be made: {problem}.") from error
    head = Head(card, layers)
    save_head(head, folder)
    return head


_Found = tuple[dict[str, Any], tuple[Layer, ...]]
"""Facts for the card, and the layers."""


def _read_pickle(path: Path) -> _Found:
    model = read_pickled_model(path)
    coef, intercept, kind = model.coef, model.intercept, "logistic"
    n_classes = len(model.classes)
    if n_classes > 2 and _is_one_vs_rest(model):
        kind = "one_vs_rest"
    elif n_classes == 2 and model.multi_class == "multinomial":
        # scikit-learn then takes the softmax over -score and +score.
        coef, intercept = 2 * coef, 2 * intercept
    task = "binary" if n_classes == 2 else "multiclass"
    return {"kind": kind, "task": task, "classes": model.classes}, (Layer(coef, intercept),)


def _is_one_vs_rest(model: PickledModel) -> bool:
    return model.multi_class == "ovr" or (
        model.multi_class in ("auto", "deprecated") and model.solver == "liblinear"
    )


def _is_torch_file(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            start = stream.read(16)
    except OSError as error:
        raise HeadInvalidError(f"{path} cannot be read ({error.strerror}).") from error
    # A zip archive, or before PyTorch 1.6 a pickle of the integer 0x1950a86a20f9469cfc6c.
    return start.startswith(b"PK") or b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19" in start


def _read_torch(path: Path) -> _Found:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise HeadInvalidError(
            f"{path} is damaged, or needs code to be unpickled, which may do anything and is "
            "refused; save the state dict alone."
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, LookupError, AttributeError) as error:
        raise HeadInvalidError(f"{path} is damaged or no PyTorch file; get it anew.") from error
    tensors = _find_layers(path, content)
    numbers = sorted({number for number, _ in tensors})
    try:
        layers = tuple(
            Layer(_numbers(tensors[number, "weight"]), _numbers(tensors[number, "bias"]))
            for number in numbers
        )
    except KeyError as error:
        raise HeadInvalidError(f"{path} has a layer without a weight or a bias.") from error
    if any(layer.weight.ndim != 2 for layer in layers):
        raise HeadInvalidError(f"{path} has layers that are not linear; they cannot be imported.")
    task = "binary" if layers[-1].weight.shape[0] <= 2 else "multiclass"
    return {"kind": "mlp", "task": task}, layers


def _find_layers(path: Path, content: Any) -> "dict[tuple[int, str], Tensor]":
    """Pick the layers out of the known layouts; key: number of the layer, weight or bias."""
    import torch

    state = content
    for layout in ("head_state_dict", "state_dict"):
        if isinstance(content, dict) and layout in content:
            state = content[layout]
            break
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise HeadInvalidError(f"{path} holds no state dict; save the head's state dict alone.")
    if any(key.startswith(_HEADS_PREFIX) for key in state):  # the encoder may lie beside them
        state = {
            key.removeprefix(_HEADS_PREFIX): value
            for key, value in state.items()
            if key.startswith(_HEADS_PREFIX)
        }
    layers = {}
    for key, value in state.items():
        match = _LAYER_KEY.fullmatch(key)
        if match is None or not isinstance(value, torch.Tensor) or not value.is_floating_point():
            raise HeadInvalidError(
                f"{path} holds {key[:100]!r}, which is no weight or bias of a linear layer; save "
                "the head's state dict alone."
            )
        layers[int(match[1]), match[2]] = value
    if not layers:
        raise HeadInvalidError(f"{path} holds no layers; save the head's state dict.")
    return layers


def _numbers(tensor: "Tensor") -> np.ndarray:
    return tensor.double().numpy()
