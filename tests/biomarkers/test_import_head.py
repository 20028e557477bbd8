"""Published heads become ours: the same probabilities, and nothing of the file is run."""

import os
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression

from oncofm.biomarkers.head import load_head
from oncofm.biomarkers.import_head import import_head
from oncofm.errors import HeadInvalidError

N = 20
FACTS = {
    "title": "A test",
    "model": "fmcib",
    "profile": "paper",
    "weights_sha256": "any",
    "intended_use": "tests",
    "licence": "MIT",
}
TWO = {"classes": ["benign", "malignant"]}


def fitted(n_classes=2):
    rng = np.random.default_rng(n_classes)
    labels = np.arange(90) % n_classes
    features = rng.normal(size=(90, N)) + labels[:, None] * rng.normal(size=N) / 3
    return LogisticRegression(max_iter=9999).fit(features, labels), features * 3


def imported(tmp_path, content, **facts):
    """Write, import, and load again from disk."""
    path = tmp_path / "file"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, LogisticRegression):
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    import_head(path, tmp_path / "head", FACTS | facts)
    return load_head(str(tmp_path / "head"), "fmcib")


def network(*sizes):
    torch.manual_seed(0)
    layers = []
    for n_in, n_out in pairwise(sizes):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


# --- scikit-learn -------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3, 8])
def test_probabilities_of_scikit_learn(tmp_path, n_classes):
    model, features = fitted(n_classes)
    head = imported(tmp_path, model)
    np.testing.assert_allclose(head.predict(features), model.predict_proba(features), atol=1e-9)
    assert head.card.name == "head"
    assert (head.card.kind, head.card.scaler, head.card.n_features) == ("logistic", "none", N)
    assert head.card.classes == tuple(map(str, range(n_classes)))


def text(word):
    return b"X" + len(word).to_bytes(4, "little") + word.encode()


def array_of_1_0_2(array):
    """The instructions that numpy 1 and pickle protocol 3 wrote for an array."""
    kind = f"{array.dtype.kind}{array.dtype.itemsize}"
    shape = b"".join(b"K" + bytes([n]) for n in array.shape)
    content = array.tobytes()
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
        + (b"(K\x01(" + shape + b"t")
        + (b"cnumpy\ndtype\n" + text(kind) + b"\x89\x88\x87R")
        + (b"(K\x03" + text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb")
        + (b"\x89B" + len(content).to_bytes(4, "little") + content + b"tb")
    )


def pickle_of_1_0_2(coef, intercept, classes, multi_class, solver="lbfgs"):
    """A model as scikit-learn 1.0.2 pickled it, put together by hand."""
    attributes = {
        "penalty": text("l2"),
        "C": b"G" + np.array(0.5, ">f8").tobytes(),
        "class_weight": b"N",
        "random_state": b"K\x2a",
        "solver": text(solver),
        "multi_class": text(multi_class),
        "n_features_in_": b"K" + bytes([coef.shape[1]]),
        "classes_": array_of_1_0_2(classes),
        "coef_": array_of_1_0_2(coef),
        "intercept_": array_of_1_0_2(intercept),
        "_sklearn_version": text("1.0.2"),
    }
    items = b"".join(text(key) + value for key, value in attributes.items())
    name = b"csklearn.linear_model._logistic\nLogisticRegression\n"
    return b"\x80\x03" + name + b")\x81}(" + items + b"ub."


@pytest.mark.parametrize(
    ("n_classes", "multi_class", "solver", "expected"),
    [
        (2, "auto", "lbfgs", lambda s: np.hstack([expit(-s), expit(s)])),
        (2, "ovr", "lbfgs", lambda s: np.hstack([expit(-s), expit(s)])),
        # scikit-learn 1.0.2: softmax over the score with both signs
        (2, "multinomial", "lbfgs", lambda s: softmax(np.hstack([-s, s]), axis=1)),
        (4, "auto", "lbfgs", lambda s: softmax(s, axis=1)),
        (4, "multinomial", "saga", lambda s: softmax(s, axis=1)),
        (4, "ovr", "lbfgs", lambda s: expit(s) / expit(s).sum(axis=1, keepdims=True)),
        (4, "auto", "liblinear", lambda s: expit(s) / expit(s).sum(axis=1, keepdims=True)),
    ],
)
def test_models_of_1_0_2(tmp_path, n_classes, multi_class, solver, expected):
    rng = np.random.default_rng(3)
    n_rows = 1 if n_classes == 2 else n_classes
    coef, intercept = rng.normal(size=(n_rows, N)), rng.normal(size=n_rows)
    features = rng.normal(size=(9, N))
    content = pickle_of_1_0_2(coef, intercept, np.arange(n_classes), multi_class, solver)
    head = imported(tmp_path, content)
    scores = features @ coef.T + intercept
    np.testing.assert_allclose(head.predict(features), expected(scores), atol=1e-12)


def test_scores_that_are_too_small_for_a_sigmoid(tmp_path):
    coef, intercept = np.ones((3, N)), np.array([0.0, 1.0, 2.0])
    head = imported(tmp_path, pickle_of_1_0_2(coef, intercept, np.arange(3), "ovr"))
    found = head.predict(np.full((1, N), -100.0))
    np.testing.assert_allclose(found, softmax([[0.0, 1.0, 2.0]], axis=1), rtol=1e-9)


def test_names_of_classes(tmp_path):
    assert imported(tmp_path, fitted()[0], **TWO).card.classes == ("benign", "malignant")
    with pytest.raises(HeadInvalidError, match="1 outputs"):
        imported(tmp_path, fitted(3)[0], **TWO)


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("write", [lambda c, p: p.write_bytes(pickle.dumps(c)), torch.save])
def test_a_payload_is_refused(tmp_path, write):
    for content in (Bomb(tmp_path / "written"), {"0.weight": [Bomb(tmp_path / "written")]}):
        write(content, tmp_path / "file")
        with pytest.raises(HeadInvalidError, match="refused"):
            import_head(tmp_path / "file", tmp_path / "head", FACTS)
    assert not (tmp_path / "written").exists()
    assert not (tmp_path / "head").exists()


# --- PyTorch ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layout",
    [
        lambda state: state,
        lambda state: {"head_state_dict": {k.replace(".", ".0."): v for k, v in state.items()}},
        lambda state: {"head_state_dict": state, "trunk_state_dict": {"conv1.weight": 1}},
        lambda state: {
            "state_dict": {f"model.heads.{k}": v for k, v in state.items()}
            | {"model.trunk.conv1.weight": torch.zeros(1)}
        },
    ],
)
@pytest.mark.parametrize("sizes", [(N, 16, 8, 2), (N, 4), (N, 6, 3)])
def test_networks(tmp_path, layout, sizes):
    net = network(*sizes)
    names = [f"c{i}" for i in range(sizes[-1])]
    head = imported(tmp_path, layout(net.state_dict()), classes=names)
    features = np.random.default_rng(0).normal(size=(7, N)).astype(np.float32)
    with torch.no_grad():
        expected = net.double()(torch.from_numpy(features).double()).softmax(dim=1)
    np.testing.assert_allclose(head.predict(features), expected, atol=1e-12)
    assert (head.card.kind, len(head.layers)) == ("mlp", len(sizes) - 1)


def test_a_network_with_one_output(tmp_path):
    net = network(N, 5, 1)
    torch.save(net.state_dict(), tmp_path / "old", _use_new_zipfile_serialization=False)
    head = imported(tmp_path, (tmp_path / "old").read_bytes(), **TWO)
    features = np.random.default_rng(0).normal(size=(7, N)).astype(np.float32)
    with torch.no_grad():
        expected = net.double()(torch.from_numpy(features).double()).sigmoid()[:, 0]
    np.testing.assert_allclose(head.predict(features)[:, 1], expected, atol=1e-12)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([1, 2], "no state dict"),
        ({}, "no layers"),
        ({"head_state_dict": None}, "no state dict"),
        ({"0.weight": torch.ones(2, N), "0.running_mean": torch.ones(2)}, "running_mean"),
        ({"0.weight": torch.ones(2, N, dtype=torch.int64)}, "0.weight"),
        ({"0.weight": "text"}, "0.weight"),
        ({"0.weight": torch.ones(2, N)}, "without a weight or a bias"),
        ({"0.weight": torch.ones(2), "0.bias": torch.ones(2)}, "not linear"),
        ({"0.weight": torch.ones(2, N), "0.bias": torch.ones(3)}, "shapes"),
        ({"0.weight": torch.full((2, N), torch.nan), "0.bias": torch.ones(2)}, "not finite"),
        (b"PK nothing", "damaged"),
        (b"nothing", "no pickle"),
        (b"", "no pickle"),
    ],
)
def test_files_that_cannot_be_imported(tmp_path, content, sentence):
    with pytest.raises(HeadInvalidError, match=sentence):
        imported(tmp_path, content, **TWO)
    assert not (tmp_path / "head").exists()


def test_layers_that_do_not_follow_each_other(tmp_path):
    state = network(N, 8, 2).state_dict()
    state["2.weight"] = torch.ones(2, 7)
    with pytest.raises(HeadInvalidError, match="shapes"):
        imported(tmp_path, state, **TWO)


# --- the card and the files ---------------------------------------------------------------


def test_facts(tmp_path):
    threshold = {"value": 0.54, "chosen": "median of the validation set"}
    model, features = fitted()
    head = imported(
        tmp_path, model, threshold=threshold, direction="higher_is_better", limits="few cases"
    )
    alive = model.predict_proba(features)[:, 1]
    groups = np.array(head.risk_groups(head.predict(features)))
    np.testing.assert_array_equal(groups == "high", alive < 0.54)
    assert head.card.limits == "few cases"


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"name": "other"}, "name of a head cannot be given"),
        ({"surprise": 1}, "surprise"),
        ({"classes": ["one"]}, "two or more"),
        ({"threshold": {"value": 0.5, "chosen": "by hand"}}, "direction"),
        ({"threshold": {"value": float("nan"), "chosen": "by hand"}}, "finite"),
        ({"weights_sha256": "?"}, "weights_sha256"),
    ],
)
def test_facts_that_make_no_card(tmp_path, facts, sentence):
    with pytest.raises(HeadInvalidError, match=sentence):
        imported(tmp_path, fitted()[0], **facts)


def test_a_truncated_file_of_arrays(tmp_path):
    imported(tmp_path, fitted()[0])
    arrays = tmp_path / "head" / "head.safetensors"
    content = arrays.read_bytes()
    for length in (0, 4, 40, len(content) - 1):
        arrays.write_bytes(content[:length])
        with pytest.raises(HeadInvalidError, match="cannot be used"):
            load_head(str(tmp_path / "head"), "fmcib")


@pytest.mark.parametrize("card", [b"\xff\xfe\xfa", b"[]", b"a: [", b"[" * 20_000, b"", b"x"])
def test_a_damaged_card(tmp_path, card):
    imported(tmp_path, fitted()[0])
    (tmp_path / "head" / "head.yml").write_bytes(card)
    with pytest.raises(HeadInvalidError, match="cannot be used"):
        load_head(str(tmp_path / "head"), "fmcib")


def test_the_same_bytes_twice(tmp_path):
    files = [tmp_path / "head" / name for name in ("head.yml", "head.safetensors")]
    content = []
    for _ in range(2):
        imported(tmp_path, network(N, 4, 2).state_dict(), **TWO)
        content.append([file.read_bytes() for file in files])
    assert content[0] == content[1]
    assert sorted((tmp_path / "head").iterdir()) == sorted(files)
