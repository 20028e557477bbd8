"""Read a pickled scikit-learn LogisticRegression without running anything that the file names.

A pickle is a program: it names callables and calls them. This reader knows the few names that such
a model needs and gives every one a stand-in that only keeps its arguments; neither scikit-learn
nor numpy sees a byte of the file before its type, shape and length were compared. Any other name,
and any instruction that a model does not need, is refused.
"""

import io
import math
import pickle
import pickletools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oncofm.errors import HeadInvalidError

_MAX_BYTES = 64 << 20
"""512 classes of 16 384 features."""

_MAX_INSTRUCTIONS = 100_000
_PROTOCOLS = range(2, 6)

# fmt: off
_INSTRUCTIONS = frozenset([
    "PROTO", "FRAME", "STOP", "GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "MARK",
    "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET", "NONE", "NEWTRUE", "NEWFALSE",
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
    "SHORT_BINBYTES", "BINBYTES", "BYTEARRAY8", "EMPTY_LIST", "APPEND", "APPENDS",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_DICT", "SETITEM", "SETITEMS",
])
# fmt: on
"""What the pickler writes for numbers, texts, bytes, lists, tuples, dicts and objects. Persistent
ids, extension codes and buffers that lie elsewhere are not among them."""

_ITEM_TYPE = re.compile(r"[fiu][1248]|b1|U[1-9][0-9]{0,3}")


@dataclass(frozen=True)
class PickledModel:
    """What a pickled LogisticRegression says.

    Attributes
    ----------
    coef : numpy.ndarray
        Shape (n_rows, n_features) float64.
    intercept : numpy.ndarray
        Shape (n_rows,) float64.
    classes : tuple of str
        The labels, in order.
    multi_class, solver : str
        As given to scikit-learn; ``auto`` where the version knows no such parameter.
    version : str
        Of scikit-learn.
    """

    coef: np.ndarray
    intercept: np.ndarray
    classes: tuple[str, ...]
    multi_class: str
    solver: str
    version: str


def read_pickled_model(path: Path) -> PickledModel:
    """Read a LogisticRegression that ``pickle.dump`` wrote with protocol 2 to 5.

    Raises
    ------
    HeadInvalidError
        If the file is none, is damaged, too large, or needs anything else to be unpickled.
    """
    content = _read_bytes(path)
    _require_plain_instructions(path, content)
    try:
        model = _Unpickler(io.BytesIO(content), encoding="ASCII").load()
    except _RefusedError as error:
        raise _refused(path, str(error)) from error
    except Exception as error:  # a damaged stream may end in any of them
        raise HeadInvalidError(f"{path} is a damaged pickle; get it anew.") from error
    if not isinstance(model, _LogisticRegression) or not isinstance(model.state, dict):
        raise HeadInvalidError(f"{path} holds no LogisticRegression; only such models are read.")
    try:
        return _read_state(model.state)
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        problem = " ".join(str(error).split())
        raise HeadInvalidError(
            f"{path} holds no fitted LogisticRegression ({problem}); fit and pickle it anew."
        ) from error


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise HeadInvalidError(f"{path} cannot be read ({error.strerror}).") from error
    if len(content) > _MAX_BYTES:
        raise HeadInvalidError(
            f"{path} is larger than {_MAX_BYTES >> 20} MB, which no LogisticRegression needs."
        )
    if content[:1] != b"\x80" or not content[1:2] or content[1] not in _PROTOCOLS:
        raise HeadInvalidError(
            f"{path} is no pickle of protocol 2 to 5; write the model with pickle.dump, "
            "not with joblib."
        )
    if b"joblib.numpy_pickle" in content:
        raise HeadInvalidError(f"{path} was written by joblib; write the model with pickle.dump.")
    return content


def _require_plain_instructions(path: Path, content: bytes) -> None:
    """Read the program without running it."""
    try:
        for number, (instruction, _, _) in enumerate(pickletools.genops(content)):
            if instruction.name not in _INSTRUCTIONS:
                raise _refused(path, f"the instruction {instruction.name}")
            if number >= _MAX_INSTRUCTIONS:
                raise _refused(path, f"more than {_MAX_INSTRUCTIONS} instructions")
    except (ValueError, IndexError, OverflowError, MemoryError) as error:
        raise HeadInvalidError(f"{path} is a damaged pickle; get it anew.") from error


def _refused(path: Path, what: str) -> HeadInvalidError:
    return HeadInvalidError(
        f"{path} needs {what} to be unpickled, which no LogisticRegression does; it is refused, "
        "and nothing of it was run."
    )


# --- stand-ins ----------------------------------------------------------------------------


class _RefusedError(Exception):
    pass


class _Inert:
    """Keeps what it is given."""

    __slots__ = ("arguments", "state")

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _DType(_Inert):
    __slots__ = ()


class _Reconstructed(_Inert):
    """An array of protocol 2 to 4; its state says all."""

    __slots__ = ()


class _FromBuffer(_Inert):
    """An array of protocol 5: buffer, type, shape, order."""

    __slots__ = ()


class _Scalar(_Inert):
    __slots__ = ()


class _Encoded(_Inert):
    """Bytes of protocol 2: a text in Latin-1."""

    __slots__ = ()


class _ArrayClass(_Inert):
    """numpy.ndarray itself, only named in the arguments of `_Reconstructed`."""

    __slots__ = ()


class _LogisticRegression:
    """The model: made without arguments, then given its attributes."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


_STAND_INS: dict[tuple[str, str], type] = {
    ("sklearn.linear_model._logistic", "LogisticRegression"): _LogisticRegression,
    ("numpy", "ndarray"): _ArrayClass,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _Encoded,
}
for _core in ("numpy.core", "numpy._core"):  # up to numpy 1, from numpy 2
    _STAND_INS[f"{_core}.multiarray", "_reconstruct"] = _Reconstructed
    _STAND_INS[f"{_core}.multiarray", "scalar"] = _Scalar
    _STAND_INS[f"{_core}.numeric", "_frombuffer"] = _FromBuffer


class _Unpickler(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    # The one written in Python: its memory of objects is a dict, which a large index cannot bloat.

    def find_class(self, module: str, name: str) -> type:
        stand_in = _STAND_INS.get((module, name))
        if stand_in is None:
            raise _RefusedError(f"{module}.{name}"[:200])
        return stand_in

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError("a persistent id")


# --- from stand-ins to arrays -------------------------------------------------------------


def _read_state(state: dict[Any, Any]) -> PickledModel:
    coef = _array(state["coef_"])
    intercept = _array(state["intercept_"])
    classes = _array(state["classes_"])
    n_features = _value(state["n_features_in_"])
    multi_class = state.get("multi_class", "auto")
    solver = state["solver"]
    if coef.dtype.kind != "f" or intercept.dtype.kind != "f":
        raise TypeError("coef_ or intercept_ holds no floating-point numbers")
    if classes.ndim != 1:
        raise ValueError("classes_ is no row of labels")
    if coef.ndim != 2 or n_features != coef.shape[1] or intercept.shape != (len(coef),):
        raise ValueError("the shapes of coef_, intercept_ and n_features_in_ do not agree")
    if len(coef) != (1 if len(classes) == 2 else len(classes)):
        raise ValueError("coef_ does not have the rows that classes_ asks for")
    if not isinstance(multi_class, str) or not isinstance(solver, str):
        raise TypeError("multi_class or solver is no text")
    return PickledModel(
        coef.astype(np.float64),
        intercept.astype(np.float64),
        tuple(str(label) for label in classes),
        multi_class,
        solver,
        str(state.get("_sklearn_version", ""))[:20],
    )


def _array(value: Any) -> np.ndarray:
    """Build the array that a stand-in describes."""
    if type(value) is _Reconstructed:
        _, shape, dtype, fortran, data = value.state
        order = "F" if fortran is True else "C"
    elif type(value) is _FromBuffer:
        data, dtype, shape, order = value.arguments[:4]
    else:
        raise TypeError("an attribute is no array")
    if type(shape) is not tuple or not all(type(n) is int and n >= 0 for n in shape):
        raise TypeError("a shape is no tuple of lengths")
    if order not in ("C", "F"):
        raise ValueError("an array is neither in C nor in Fortran order")
    if type(data) is list:  # of objects; only labels are kept like this
        if shape != (len(data),) or not all(type(item) in (str, int) for item in data):
            raise TypeError("an array of objects holds more than a row of texts and integers")
        return np.array([str(item) for item in data])
    item = _item_type(dtype)
    content = _bytes(data)
    if math.prod(shape) * item.itemsize != len(content):
        raise ValueError("an array has another length than its shape says")
    return np.frombuffer(content, item).reshape(shape, order=order)


def _value(value: Any) -> Any:
    """Read a number: a plain one, or a numpy scalar."""
    if type(value) is not _Scalar:
        return value
    dtype, data = value.arguments
    return np.frombuffer(_bytes(data), _item_type(dtype)).item()


def _item_type(dtype: Any) -> np.dtype:
    if type(dtype) is not _DType or type(dtype.arguments[0]) is not str:
        raise TypeError("a type is none")
    name = dtype.arguments[0]
    if not _ITEM_TYPE.fullmatch(name):
        raise TypeError("a type is none of a number, a truth value or a text")
    # version, byte order, ...
    byte_order = dtype.state[1] if type(dtype.state) is tuple and len(dtype.state) > 1 else "="
    if byte_order not in ("<", ">", "|", "="):
        raise ValueError("a byte order is none")
    return np.dtype(name).newbyteorder("<" if byte_order == "=" else byte_order)


def _bytes(data: Any) -> bytes:
    if type(data) is _Encoded:
        text, encoding = data.arguments
        if type(text) is not str or encoding != "latin1":
            raise TypeError("bytes are not encoded as pickles encode them")
        return text.encode("latin1")
    if not isinstance(data, bytes | bytearray):
        raise TypeError("an array has no bytes")
    return bytes(data)
