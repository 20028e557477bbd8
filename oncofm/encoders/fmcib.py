"""FMCIB's encoder: a 3-D ResNet-50, twice as wide, for one-channel patches of 50 x 50 x 50.

Pai et al., Foundation model for cancer imaging biomarkers, Nature Machine Intelligence 2024.
This is the network as it was trained, with batch normalisation; inference runs the folded form
of `oncofm.encoders.folded`. The names of the parameters are those of the published file.
"""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

PATCH_SIZE = 50
N_FEATURES = 4096
EXPANSION = 4
"""A block ends in four times as many channels as its inner convolutions have."""

STEM_CHANNELS = 128
STEM_MAP = 25
POOLED_MAP = 13


class Stage(NamedTuple):
    """One of the four groups of residual blocks."""

    name: str
    channels: int
    """Channels of the inner convolutions; the stage ends in `EXPANSION` times as many."""
    n_blocks: int
    stride: int
    """Stride of the first block."""
    map_size: int
    """Edge of the cubic map that leaves the stage."""


STAGES = (
    Stage("layer1", 128, 3, 1, 13),
    Stage("layer2", 256, 4, 2, 7),
    Stage("layer3", 512, 6, 2, 4),
    Stage("layer4", 1024, 3, 2, 2),
)

FLOP_PER_PATCH = 25.69e9
"""Two per multiplication and addition, padding included."""


def check_map(where: str, size: int, expected: int) -> None:
    """Refuse a map of another size than the trained network had there.

    Strides cannot be seen in weights: with a wrong one they load, and the features are wrong
    without a word. The sizes of the maps tell.
    """
    if size != expected:
        raise ValueError(
            f"The map after {where} has an edge of {size} voxels instead of {expected}: the patch "
            f"is not {PATCH_SIZE} voxels wide or a stride is wrong."
        )


class Bottleneck(nn.Module):
    """1x1x1, 3x3x3, 1x1x1 convolution, each with batch norm, around a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int, shortcut: bool) -> None:
        super().__init__()
        channels_out = channels * EXPANSION
        # The order of construction decides which random numbers a layer draws: the shortcut
        # comes first, although it is registered last.
        downsample = None
        if shortcut:
            downsample = nn.Sequential(
                nn.Conv3d(channels_in, channels_out, 1, stride=stride, bias=True),
                nn.BatchNorm3d(channels_out),
            )
        self.conv1 = nn.Conv3d(channels_in, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(channels)
        self.conv2 = nn.Conv3d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(channels)
        self.conv3 = nn.Conv3d(channels, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(channels_out)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels_in, s, s, s) -> (n, 4 * channels, s / stride, ...)."""
        h = torch.relu(self.bn1(self.conv1(x)))
        h = torch.relu(self.bn2(self.conv2(h)))
        h = self.bn3(self.conv3(h))
        return torch.relu(h + (x if self.downsample is None else self.downsample(x)))


class FMCIB(nn.Module):
    """Patches (n, 1, 50, 50, 50) -> features (n, 4096), all >= 0."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(1, STEM_CHANNELS, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm3d(STEM_CHANNELS)
        self.maxpool = nn.MaxPool3d(3, stride=2, padding=1)
        channels_in = STEM_CHANNELS
        for stage in STAGES:
            blocks = []
            for index in range(stage.n_blocks):
                stride = stage.stride if index == 0 else 1
                blocks.append(Bottleneck(channels_in, stage.channels, stride, index == 0))
                channels_in = stage.channels * EXPANSION
            self.add_module(stage.name, nn.Sequential(*blocks))
        for module in self.modules():
            # There is nothing to draw for a meta tensor, and trying costs torch 2 s of imports.
            if isinstance(module, nn.Conv3d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Encode float32 patches."""
        # x: (n, 1, 50, 50, 50)
        x = torch.relu(self.bn1(self.conv1(x)))  # (n, 128, 25, 25, 25)
        check_map("the first convolution", x.shape[-1], STEM_MAP)
        x = self.maxpool(x)  # (n, 128, 13, 13, 13)
        check_map("the pooling", x.shape[-1], POOLED_MAP)
        for stage in STAGES:
            # layer1 (n, 512, 13, 13, 13), layer2 (n, 1024, 7, 7, 7),
            # layer3 (n, 2048, 4, 4, 4), layer4 (n, 4096, 2, 2, 2)
            x = self.get_submodule(stage.name)(x)
            check_map(stage.name, x.shape[-1], stage.map_size)
        return x.mean(dim=(2, 3, 4))  # (n, 4096)


def expected_tensors() -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and type of each of the 322 tensors that a weights file must hold."""
    with torch.device("meta"):
        state = FMCIB().state_dict()
    return {key: (tensor.shape, tensor.dtype) for key, tensor in state.items()}


def random_weights(seed: int) -> dict[str, Tensor]:
    """Draw weights that have no meaning, for demonstrations and tests.

    The same seed gives the same bytes as ``torch.manual_seed(seed)`` followed by MONAI's
    ``resnet50`` in FMCIB's form, so that two implementations can be compared without the
    published file. The global random state is left as it was.

    Parameters
    ----------
    seed : int
        Any integer that torch takes as a seed.

    Returns
    -------
    dict of str to torch.Tensor
        The state dict: 322 tensors, 738 MB.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return dict(FMCIB().state_dict())


def sha256_of_tensors(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over all keys in sorted order, each followed by its tensor's bytes."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].flatten().numpy().data)
    return digest.hexdigest()
