"""Strict reading of weights files, with a network of three tensors."""

import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from oncofm.encoders.checkpoint import read_checkpoint
from oncofm.encoders.fmcib import expected_tensors
from oncofm.errors import WeightsInvalidError

EXPECTED = {
    "conv1.weight": (torch.Size([4, 1, 3, 3, 3]), torch.float32),
    "bn1.running_var": (torch.Size([4]), torch.float32),
    "bn1.num_batches_tracked": (torch.Size([]), torch.int64),
}


def make_state() -> dict[str, torch.Tensor]:
    return {
        "conv1.weight": torch.arange(108, dtype=torch.float32).view(4, 1, 3, 3, 3),
        "bn1.running_var": torch.ones(4),
        "bn1.num_batches_tracked": torch.tensor(5),
    }


def with_prefix(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in make_state().items()}


def refusal(path, expected=EXPECTED) -> str:
    with pytest.raises(WeightsInvalidError) as refused:
        read_checkpoint(path, expected)
    sentence = str(refused.value)
    assert sentence.startswith(str(path))
    assert sentence.endswith(".")
    return sentence


HEADS = {"0.0.weight": torch.zeros(2, 4), "0.0.bias": torch.zeros(2)}
LIGHTNING_HEADS = {f"model.heads.{key}": value for key, value in HEADS.items()}


@pytest.mark.parametrize(
    "content",
    [
        {"trunk_state_dict": make_state()},
        {"trunk_state_dict": OrderedDict(make_state()), "head_state_dict": HEADS},
        {"state_dict": with_prefix("model.trunk.") | LIGHTNING_HEADS, "epoch": 3},
        {"state_dict": make_state()},
        make_state(),
        with_prefix("module."),
        {"trunk_state_dict": dict(reversed(make_state().items()))},
    ],
    ids=["published", "with heads", "lightning", "state_dict", "bare", "module", "other order"],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_layouts(tmp_path, content, zipped):
    path = tmp_path / "weights.torch"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)

    state = read_checkpoint(path, EXPECTED)

    assert list(state) == list(EXPECTED)
    assert all(torch.equal(state[key], value) for key, value in make_state().items())


@pytest.mark.parametrize("prefix", ["", "module.", "model.trunk."])
def test_safetensors_are_known_by_their_bytes(tmp_path, prefix):
    path = tmp_path / "weights.bin"
    save_file(with_prefix(prefix), path)

    state = read_checkpoint(path, EXPECTED)

    assert all(torch.equal(state[key], value) for key, value in make_state().items())


@pytest.mark.parametrize("suffix", ["torch", "safetensors"])
def test_writing_to_the_tensors_leaves_the_file_alone(tmp_path, suffix):
    path = tmp_path / f"weights.{suffix}"
    if suffix == "torch":
        torch.save(make_state(), path)
    else:
        save_file(make_state(), path)
    before = path.read_bytes()

    read_checkpoint(path, EXPECTED)["conv1.weight"].fill_(7)

    assert path.read_bytes() == before


def test_tensors_that_share_memory_are_separated(tmp_path):
    shared = torch.arange(112, dtype=torch.float32)
    state = make_state() | {
        "conv1.weight": shared[:108].view(4, 1, 3, 3, 3),
        "bn1.running_var": shared[104:108],
    }
    torch.save(state, tmp_path / "weights.torch")

    read = read_checkpoint(tmp_path / "weights.torch", EXPECTED)
    read["conv1.weight"].zero_()

    assert read["bn1.running_var"].tolist() == [104, 105, 106, 107]


def test_scattered_tensors_are_gathered(tmp_path):
    state = make_state()
    state["conv1.weight"] = state["conv1.weight"].permute(0, 1, 4, 3, 2).contiguous()
    state["conv1.weight"] = state["conv1.weight"].permute(0, 1, 4, 3, 2)
    state["bn1.running_var"] = torch.ones(1).expand(4)
    torch.save(state, tmp_path / "weights.torch")

    read = read_checkpoint(tmp_path / "weights.torch", EXPECTED)

    assert all(tensor.is_contiguous() for tensor in read.values())
    assert all(torch.equal(read[key], value) for key, value in make_state().items())


def changed(**tensors: object) -> dict[str, object]:
    return make_state() | {key.replace("__", "."): value for key, value in tensors.items()}


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({"conv1.weight": torch.zeros(4, 1, 3, 3, 3)}, "2 tensors are missing (bn1.running_var, "),
        (changed(fc__weight=torch.zeros(2)), "1 are unexpected (fc.weight)"),
        (with_prefix("net."), "3 are unexpected (net.conv1.weight, "),
        (
            changed(conv1__weight=torch.zeros(4, 3, 3, 3, 3)),
            "conv1.weight (4, 3, 3, 3, 3) instead of (4, 1, 3, 3, 3)",
        ),
        (
            changed(bn1__running_var=torch.ones(4).half()),
            "1 have another type (bn1.running_var float16 instead of float32)",
        ),
        (changed(bn1__running_var=torch.ones(4).double()), "float64 instead of float32"),
        (changed(bn1__num_batches_tracked=torch.tensor(5.0)), "float32 instead of int64"),
        (changed(bn1__num_batches_tracked=5), "bn1.num_batches_tracked is no plain tensor"),
        (changed(bn1__running_var=torch.ones(4).to_sparse()), "bn1.running_var is no plain"),
        (
            changed(bn1__running_var=torch.tensor([1, np.nan, 1, 1], dtype=torch.float32)),
            "infinite or NaN values in 1 tensors (bn1.running_var)",
        ),
        (changed(bn1__running_var=torch.full((4,), torch.inf)), "infinite or NaN values"),
        (changed(bn1__running_var=torch.full((4,), -torch.inf)), "infinite or NaN values"),
        ([torch.zeros(3)], "holds no state dict"),
        ({1: torch.zeros(3)}, "holds no state dict"),
        ({"trunk_state_dict": torch.zeros(3)}, "holds no state dict"),
        ({}, "3 tensors are missing"),
    ],
)
def test_anything_but_the_expected_tensors_is_refused(tmp_path, state, sentence):
    path = tmp_path / "weights.torch"
    torch.save(state, path)

    assert sentence in refusal(path)


def test_a_sentence_names_the_first_few_keys_only(tmp_path):
    torch.save({}, tmp_path / "weights.torch")

    sentence = refusal(tmp_path / "weights.torch", expected_tensors())

    assert "322 tensors are missing (conv1.weight, bn1.weight, bn1.bias, ...)" in sentence


class Payload:
    """What a hostile file would carry."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return (eval, (f"open({self.target!r}, 'w').close()",))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_in_a_pickle_never_runs(tmp_path, zipped):
    path, target = tmp_path / "weights.torch", tmp_path / "was-here"
    content = {"trunk_state_dict": make_state(), "extra": Payload(target)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)

    assert "needs code to be unpickled" in refusal(path)
    assert not target.exists()


def test_a_plain_pickle_is_refused(tmp_path):
    path, target = tmp_path / "weights.pkl", tmp_path / "was-here"
    path.write_bytes(pickle.dumps(Payload(target), protocol=2))

    refusal(path)
    assert not target.exists()


@pytest.mark.parametrize("part", [0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_files_are_refused(tmp_path, kind, part):
    path = tmp_path / "weights"
    if kind == "safetensors":
        save_file(make_state(), path)
    else:
        torch.save(make_state(), path, _use_new_zipfile_serialization=kind == "zip")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])

    refusal(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 the start of an archive", "is truncated"),
        (b"<!DOCTYPE html><html>Not found</html>", "is neither a PyTorch nor a safetensors"),
        (b"12345678{ this is no header }", "damaged safetensors"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, content, sentence):
    path = tmp_path / "weights.torch"
    path.write_bytes(content)

    with pytest.raises(WeightsInvalidError, match=sentence):
        read_checkpoint(path, EXPECTED)


def test_an_archive_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "weights.torch"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "nothing")

    assert "is damaged or no PyTorch file" in refusal(path)


@pytest.mark.slow
def test_a_file_of_full_size(seed0_weights):
    state = read_checkpoint(seed0_weights, expected_tensors())

    assert len(state) == 322
    assert state["layer4.0.conv2.weight"].shape == (1024, 1024, 3, 3, 3)
