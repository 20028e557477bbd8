"""Pickled models against scikit-learn, and everything that wants to run code."""

import collections
import contextlib
import os
import pickle
import struct

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from oncofm.biomarkers.pickle_import import read_pickled_model
from oncofm.errors import HeadInvalidError

N = 20


def fitted(n_classes=2, labels=None):
    rng = np.random.default_rng(n_classes)
    codes = np.arange(60) % n_classes
    features = rng.normal(size=(60, N)) + codes[:, None] * rng.normal(size=N)
    return LogisticRegression(max_iter=9999).fit(
        features, codes if labels is None else np.take(labels, codes)
    )


def dumped(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol))
    return path


class Bomb:
    """Runs a callable when it is unpickled."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("n_classes", [2, 8])
def test_arrays_and_labels(tmp_path, protocol, n_classes):
    model = fitted(n_classes)
    found = read_pickled_model(dumped(tmp_path / "m.pkl", model, protocol))
    np.testing.assert_array_equal(found.coef, model.coef_)
    np.testing.assert_array_equal(found.intercept, model.intercept_)
    assert found.classes == tuple(str(i) for i in range(n_classes))
    assert found.version == model.__getstate__()["_sklearn_version"]


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize(
    "labels",
    [
        np.array(["benign", "übel"]),
        np.array(["a", "b"], dtype=object),
        np.array([False, True]),
        np.array([1, 3], dtype=">i4"),
    ],
)
def test_kinds_of_labels(tmp_path, protocol, labels):
    model = fitted(labels=labels)
    model.classes_ = labels  # as they are: scikit-learn may have changed the byte order
    found = read_pickled_model(dumped(tmp_path / "m.pkl", model, protocol))
    assert found.classes == tuple(str(label) for label in labels)


def test_other_layouts_of_arrays(tmp_path):
    model = fitted(3)
    expected = model.coef_.copy()
    model.coef_ = np.asfortranarray(model.coef_)
    model.n_features_in_ = np.int64(N)
    for protocol in (2, 4, 5):
        found = read_pickled_model(dumped(tmp_path / "m.pkl", model, protocol))
        np.testing.assert_array_equal(found.coef, expected)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("function", [os.system, eval, exec, open, getattr, __import__])
def test_a_payload_is_not_run(tmp_path, protocol, function):
    target = tmp_path / "written"
    arguments = {
        os.system: (f"touch {target}",),
        open: (str(target), "w"),
        getattr: (os, "system"),
        __import__: ("antigravity",),
    }.get(function, (f"open({str(target)!r}, 'w')",))
    if function is getattr:
        arguments = ("", "upper")
    nested = fitted()
    nested.coef_ = {"deep": [(Bomb(function, *arguments),)]}
    for content in (Bomb(function, *arguments), nested, [fitted(), Bomb(function, *arguments)]):
        with pytest.raises(HeadInvalidError, match="nothing of it was run"):
            read_pickled_model(dumped(tmp_path / "m.pkl", content, protocol))
    assert not target.exists()


@pytest.mark.parametrize(
    "content",
    [Ridge().fit(np.eye(3), np.arange(3)), StandardScaler(), collections.OrderedDict(), {1}],
)
def test_other_objects(tmp_path, content):
    with pytest.raises(HeadInvalidError, match="to be unpickled"):
        read_pickled_model(dumped(tmp_path / "m.pkl", content))


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02cos\nsystem\n.",
        b"\x80\x02cnumpy\nload\n.",
        b"\x80\x04\x8c\x10numpy.core.numpy\x8c\x04load\x93.",
        b"\x80\x02c_codecs\ndecode\n.",
    ],
)
def test_other_names(tmp_path, program):
    (tmp_path / "m.pkl").write_bytes(program)
    with pytest.raises(HeadInvalidError, match="nothing of it was run"):
        read_pickled_model(tmp_path / "m.pkl")


@pytest.mark.parametrize(
    ("program", "name"),
    [
        (b"\x80\x02X\x01\x00\x00\x00aQ.", "BINPERSID"),
        (b"\x80\x02Pname\n.", "PERSID"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"\x80\x02(ios\nsystem\n.", "INST"),
        (b"\x80\x02(cos\nsystem\no.", "OBJ"),
        (b"\x80\x04}}\x92.", "NEWOBJ_EX"),
    ],
)
def test_instructions_that_no_model_needs(tmp_path, program, name):
    (tmp_path / "m.pkl").write_bytes(program)
    with pytest.raises(HeadInvalidError, match=f"{name}|_codecs|os.system"):
        read_pickled_model(tmp_path / "m.pkl")


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02cnumpy\ndtype\n}b.",  # state for a class
        b"\x80\x02cnumpy\ndtype\n}}\x86b.",
        b"\x80\x02]]a]R.",  # a call of a list
        b"\x80\x02cnumpy\ndtype\nN\x81.",
        b"\x80\x02h\x07.",  # what nothing was put into
        b"\x80\x02}]Ns.",  # a key that cannot be one
        b"\x80\x02X\xff\xff\xff\x7fa.",
        b"\x80\x02.",
        b"\x80\x02",
    ],
)
def test_broken_programs(tmp_path, program):
    (tmp_path / "m.pkl").write_bytes(program)
    with pytest.raises(HeadInvalidError, match=r"damaged|no LogisticRegression"):
        read_pickled_model(tmp_path / "m.pkl")


def test_every_truncation(tmp_path):
    content = pickle.dumps(fitted(), 4)
    for length in range(0, len(content), 7):
        (tmp_path / "m.pkl").write_bytes(content[:length])
        with pytest.raises(HeadInvalidError):
            read_pickled_model(tmp_path / "m.pkl")


def test_changed_bytes_end_in_one_error_or_a_model(tmp_path):
    rng = np.random.default_rng(0)
    for protocol in (2, 4, 5):
        content = bytearray(pickle.dumps(fitted(), protocol))
        for place in rng.integers(len(content), size=400):
            changed = content.copy()
            changed[place] = rng.integers(256)
            (tmp_path / "m.pkl").write_bytes(changed)
            with contextlib.suppress(HeadInvalidError):
                read_pickled_model(tmp_path / "m.pkl")


def test_joblib_and_old_pickles(tmp_path):
    joblib.dump(fitted(), tmp_path / "plain.pkl")
    joblib.dump(fitted(), tmp_path / "packed.pkl", compress=3)
    dumped(tmp_path / "old.pkl", fitted(), 0)
    for name in ("plain.pkl", "packed.pkl", "old.pkl"):
        with pytest.raises(HeadInvalidError, match=r"pickle\.dump"):
            read_pickled_model(tmp_path / name)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"coef_": np.ones((2, N)), "intercept_": np.zeros(2)}, "rows"),
        ({"coef_": np.ones((1, N), complex)}, "type"),
        ({"coef_": np.ones((1, N), int)}, "floating-point"),
        ({"coef_": [1.0]}, "no array"),
        ({"n_features_in_": N + 1}, "agree"),
        ({"intercept_": np.zeros(2)}, "agree"),
        ({"classes_": np.array([[0, 1]])}, "labels"),
        ({"classes_": np.array([0, None], dtype=object)}, "objects"),
        ({"multi_class": 3}, "text"),
    ],
)
def test_models_that_do_not_agree_with_themselves(tmp_path, changes, sentence):
    model = fitted()
    vars(model).update(changes)
    with pytest.raises(HeadInvalidError, match=sentence):
        read_pickled_model(dumped(tmp_path / "m.pkl", model))


def test_a_model_that_was_not_fitted(tmp_path):
    with pytest.raises(HeadInvalidError, match=r"no fitted LogisticRegression .*coef_"):
        read_pickled_model(dumped(tmp_path / "m.pkl", LogisticRegression()))


def test_too_large(tmp_path):
    with (tmp_path / "m.pkl").open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(HeadInvalidError, match="larger than 64 MB"):
        read_pickled_model(tmp_path / "m.pkl")
    (tmp_path / "m.pkl").write_bytes(b"\x80\x02" + b"N" * 100_001 + b".")
    with pytest.raises(HeadInvalidError, match="more than 100000 instructions"):
        read_pickled_model(tmp_path / "m.pkl")
    with pytest.raises(HeadInvalidError, match="cannot be read"):
        read_pickled_model(tmp_path / "none.pkl")


def test_a_large_index_costs_nothing(tmp_path):
    (tmp_path / "m.pkl").write_bytes(b"\x80\x02Nr" + struct.pack("<I", 0xFFFFFFF0) + b".")
    with pytest.raises(HeadInvalidError, match="no LogisticRegression"):
        read_pickled_model(tmp_path / "m.pkl")
