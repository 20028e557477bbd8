"""FMCIB's encoder as it runs: batch norm folded into the convolutions, maps as (n, z, y, x, c).

With the channels last, a 1x1x1 convolution is one matrix product. A 3x3x3 convolution is

- torch's own while the maps are large (layers 1 and 2);
- nine matrix products over small maps. There torch's convolution is two to six times slower: it
  multiplies padding (of the 27 taps of a 2x2x2 map only 8 fall inside) and splits the work into
  many tiny products, as each patch and each line of the map is one of its own.

Measured on two cores against torch's largest matrix-product rate: `utils/bench/bench_encoder.py`.
On a GPU the same tensors run in `oncofm.encoders.folded_gpu`.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from oncofm.encoders.fmcib import POOLED_MAP, STAGES, STEM_MAP, check_map

_BN_EPSILON = 1e-5
PATCHES_AT_ONCE = 4
"""Patches that go through the layers with large maps together: their maps then stay in the cache
and below the 32 MB from which glibc asks the kernel for fresh pages every time."""
_VALUES_AT_ONCE = 2**15 - 1
"""Values that are scaled and reordered together: few enough for a core's cache, and for torch to
leave the other cores alone, where at that time the file is hashed and images are read."""
_SMALL_MAP = 4
"""Edge of the resulting maps from which on matrix products beat torch's convolution."""


@dataclass(frozen=True)
class Block:
    """One bottleneck; weights are (out, in) or, for the 3x3x3 one, (out, 3, 3, 3, in)."""

    weight1: Tensor
    bias1: Tensor
    weight2: Tensor
    bias2: Tensor
    weight3: Tensor
    bias3: Tensor
    shortcut_weight: Tensor | None
    shortcut_bias: Tensor | None
    stride: int


@dataclass(frozen=True)
class FoldedNetwork:
    """Everything a pass through the network needs."""

    stem_weight: Tensor
    """(128, 7, 7, 7, 1), float32 in every precision."""
    stem_bias: Tensor
    stages: tuple[tuple[Block, ...], ...]


def fold(state: dict[str, Tensor], dtype: torch.dtype, device: torch.device) -> FoldedNetwork:
    """Bring the encoder's tensors into the form that runs.

    Parameters
    ----------
    state : dict of str to torch.Tensor
        As `oncofm.encoders.checkpoint.read_checkpoint` gives it. It is emptied and its memory
        written over, so that the weights are in memory once, not twice.
    dtype : torch.dtype
        Of the products and of the maps between them, float32 or bfloat16.
    device : torch.device
        Where they go.
    """

    def take(conv: str, norm: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Fold one batch norm into the convolution before it."""
        variance = state.pop(f"{norm}.running_var").double()
        scale = state.pop(f"{norm}.weight").double() / torch.sqrt(variance + _BN_EPSILON)
        offset = state.pop(f"{conv}.bias", torch.zeros(1)).double()
        shift = (offset - state.pop(f"{norm}.running_mean").double()) * scale
        bias = state.pop(f"{norm}.bias").double() + shift
        weight = _scale_in_place(state.pop(f"{conv}.weight"), scale.float(), dtype)
        return weight.to(device), bias.to(device, dtype)

    stem_weight, stem_bias = take("conv1", "bn1", torch.float32)
    stages = []
    for stage in STAGES:
        blocks = []
        for index in range(stage.n_blocks):
            name = f"{stage.name}.{index}"
            weight1, bias1 = take(f"{name}.conv1", f"{name}.bn1", dtype)
            weight2, bias2 = take(f"{name}.conv2", f"{name}.bn2", dtype)
            weight3, bias3 = take(f"{name}.conv3", f"{name}.bn3", dtype)
            shortcut_weight = shortcut_bias = None
            if index == 0:
                shortcut = f"{name}.downsample"
                shortcut_weight, shortcut_bias = take(f"{shortcut}.0", f"{shortcut}.1", dtype)
                shortcut_weight = shortcut_weight.flatten(1)
            blocks.append(
                Block(
                    weight1.flatten(1),
                    bias1,
                    weight2,
                    bias2,
                    weight3.flatten(1),
                    bias3,
                    shortcut_weight,
                    shortcut_bias,
                    stage.stride if index == 0 else 1,
                )
            )
        stages.append(tuple(blocks))
    return FoldedNetwork(stem_weight, stem_bias, tuple(stages))


def _scale_in_place(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Scale each output channel and put the input channels last, within the same memory.

    An output channel is one contiguous piece before and after, at most as long after. So a few
    channels at a time, small enough for the cache, go out and come back in the other order.
    """
    weight, scale = weight.permute(0, 2, 3, 4, 1), scale.view(-1, 1, 1, 1, 1)
    place = weight.permute(0, 4, 1, 2, 3).flatten().view(dtype)[: weight.numel()].view(weight.shape)
    n_channels = max(1, _VALUES_AT_ONCE * len(weight) // weight.numel())
    for start in range(0, len(weight), n_channels):
        few = slice(start, start + n_channels)
        place[few] = (weight[few] * scale[few]).to(dtype)
    return place


def run(network: FoldedNetwork, patches: Tensor) -> Tensor:
    """Encode a batch on a CPU.

    Parameters
    ----------
    network : FoldedNetwork
        From `fold`.
    patches : torch.Tensor
        (n, 50, 50, 50, 1) float32, n > 0.

    Returns
    -------
    torch.Tensor
        (n, 4096) float32.
    """
    large, small = network.stages[:2], network.stages[2:]
    maps = [_run_large(network, large, few) for few in patches.split(PATCHES_AT_ONCE)]
    x = torch.cat(maps)  # (n, 7, 7, 7, 1024)
    for stage, blocks in zip(STAGES[2:], small, strict=True):
        for block in blocks:
            x = _run_block(x, block)
        check_map(stage.name, x.shape[3], stage.map_size)
    return x.flatten(1, 3).float().mean(1)  # (n, 2, 2, 2, 4096) -> (n, 4096)


def _run_large(
    network: FoldedNetwork, stages: tuple[tuple[Block, ...], ...], patches: Tensor
) -> Tensor:
    # The first convolution has one input channel: there bfloat16 is slower and less exact.
    x = _convolve(patches, network.stem_weight, network.stem_bias, stride=2, padding=3)
    check_map("the first convolution", x.shape[3], STEM_MAP)
    x = _max_pool(x).relu_()  # both only choose, so their order is free
    check_map("the pooling", x.shape[3], POOLED_MAP)
    x = x.to(stages[0][0].weight1.dtype)
    for stage, blocks in zip(STAGES, stages, strict=False):
        for block in blocks:
            x = _run_block(x, block)
        check_map(stage.name, x.shape[3], stage.map_size)
    return x


def _run_block(x: Tensor, block: Block) -> Tensor:
    """(n, s, s, s, c_in) -> (n, s / stride, ..., c_out); writes over `x`."""
    h = torch.mm(x.flatten(0, 3), block.weight1.t()).add_(block.bias1).relu_()
    h = _convolve_3x3x3(h.view(*x.shape[:4], -1), block.weight2, block.bias2, block.stride)
    h = h.relu_()
    if block.shortcut_weight is None or block.shortcut_bias is None:
        out = x.flatten(0, 3)
    else:
        kept = x[:, :: block.stride, :: block.stride, :: block.stride]
        out = torch.mm(kept.flatten(0, 3), block.shortcut_weight.t()).add_(block.shortcut_bias)
    out = out.add_(block.bias3).addmm_(h.flatten(0, 3), block.weight3.t()).relu_()
    return out.view(*h.shape[:4], -1)


def _convolve_3x3x3(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    if x.shape[3] > _SMALL_MAP * stride:
        return _convolve(x, weight, bias, stride, padding=1)
    return _convolve_by_rows(x, weight, bias, stride)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """Torch's own convolution, told that the channels are last."""
    x, weight = x.permute(0, 4, 1, 2, 3), weight.permute(0, 4, 1, 2, 3)
    if x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        # F.conv3d ends here too, except that it takes a slow path for one patch with small maps.
        strides, paddings = (stride,) * 3, (padding,) * 3
        out = torch.mkldnn_convolution(x, weight, bias, paddings, strides, (1, 1, 1), 1)
    else:
        out = F.conv3d(x, weight, bias, stride, padding)
    return out.permute(0, 2, 3, 4, 1).contiguous()


def _convolve_by_rows(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """Sum over the 9 taps in z and y, each over the positions that it reaches inside the map.

    The 3 taps in x lie side by side in one product. Sums are float32 in every precision.
    """
    n, size, channels = x.shape[0], x.shape[3], x.shape[4]
    size_out = -(-size // stride)
    reach = [_reach(offset, size, size_out, stride) for offset in (-1, 0, 1)]
    rows = x.new_zeros(n, size, size, size_out, 3, channels)
    for tap, (outputs, inputs) in enumerate(reach):
        rows[:, :, :, outputs, tap] = x[:, :, :, inputs]
    rows = rows.flatten(4)
    out = bias.float().expand(n, size_out, size_out, size_out, -1).contiguous()
    for z, (out_z, in_z) in enumerate(reach):
        for y, (out_y, in_y) in enumerate(reach):
            seen = rows[:, in_z, in_y].reshape(-1, 3 * channels)
            target = out[:, out_z, out_y]
            target += torch.mm(seen, weight[:, z, y].flatten(1).t()).view(target.shape)
    return out.to(x.dtype)


def _reach(offset: int, size: int, size_out: int, stride: int) -> tuple[slice, slice]:
    """Find the outputs whose input, at `offset`, lies inside the map, and those inputs."""
    inside = [o for o in range(size_out) if 0 <= o * stride + offset < size]
    first, last = inside[0], inside[-1]
    inputs = slice(first * stride + offset, last * stride + offset + 1, stride)
    return slice(first, last + 1), inputs


def _max_pool(x: Tensor) -> Tensor:
    """Maximum over 3x3x3 at stride 2, one axis after the other.

    Torch's pooling is ten times slower. Each output is the maximum of an even position and the
    odd ones beside it, so an odd edge needs no padding.
    """
    for axis in (1, 2, 3):
        even, odd = _every_second(x, axis, 0), _every_second(x, axis, 1)
        x = even.contiguous()
        n_odd = odd.shape[axis]
        for start in (0, 1):
            beside = x.narrow(axis, start, n_odd)
            torch.maximum(beside, odd, out=beside)
    return x


def _every_second(x: Tensor, axis: int, start: int) -> Tensor:
    return x[(slice(None),) * axis + (slice(start, None, 2),)]
