"""FMCIB's encoder as it runs on a GPU: matrix products and copies, nothing else.

The network and the order of its axes, (n, z, y, x, c), are those of `oncofm.encoders.folded`. Every
convolution gathers what each output sees into a row and multiplies the rows with the weights; bias
and ReLU ride on the product. The products are cuBLAS's. cuDNN's convolutions would spare the rows,
but those of three dimensions were wrong in bfloat16 and TF32 in some of its versions (pytorch
issues 163539 and 167024), and gone from torch 2.9 (166643).

It computes the same on a CPU, where it is slow: so it is tested.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from oncofm.encoders.fmcib import POOLED_MAP, STAGES, STEM_MAP, check_map
from oncofm.encoders.folded import Block, FoldedNetwork

_PATCHES_AT_ONCE = 64
"""Patches that go through the large maps together, whose rows would fill the memory: enough for
a thousand tiles of a product."""
_BYTES_AT_ONCE = 48 * 2**20
_BYTES_PER_PATCH = 16 * 2**20
"""What a patch takes while its maps are large, and throughout; at most, in any precision."""


def bytes_needed(n: int) -> int:
    """Bound the memory, in bytes, that a batch of `n` patches takes beside the weights."""
    return _BYTES_AT_ONCE * min(n, _PATCHES_AT_ONCE) + _BYTES_PER_PATCH * n


def run_on_gpu(network: FoldedNetwork, patches: Tensor) -> Tensor:
    """Encode a batch; nothing waits for the device, so that the work can be captured in a graph.

    Parameters
    ----------
    network : FoldedNetwork
        From `oncofm.encoders.folded.fold`.
    patches : torch.Tensor
        (n, 50, 50, 50, 1) float32 on the network's device, n > 0.

    Returns
    -------
    torch.Tensor
        (n, 4096) float32. A patch's features are made by the same operations wherever in the
        batch it is.
    """
    first, *others = network.stages
    pieces = patches.split(_equal_pieces(len(patches), _PATCHES_AT_ONCE))
    x = torch.cat([_run_large(network, first, few) for few in pieces])  # (n, 13, 13, 13, 512)
    for stage, blocks in zip(STAGES[1:], others, strict=True):
        for block in blocks:
            x = _run_block(x, block)
        check_map(stage.name, x.shape[3], stage.map_size)
    return x.flatten(1, 3).mean(1, dtype=torch.float32)  # (n, 2, 2, 2, 4096) -> (n, 4096)


def _equal_pieces(n: int, most: int) -> int:
    """Find the largest divisor: a smaller last piece would be rounded in another way."""
    return next(size for size in range(min(n, most), 0, -1) if n % size == 0)


def _run_large(network: FoldedNetwork, blocks: tuple[Block, ...], patches: Tensor) -> Tensor:
    x = _convolve_stem(patches, network.stem_weight, network.stem_bias)
    check_map("the first convolution", x.shape[3], STEM_MAP)
    x = F.max_pool3d(x.permute(0, 4, 1, 2, 3), 3, stride=2, padding=1)
    x = x.permute(0, 2, 3, 4, 1).to(blocks[0].weight1.dtype).contiguous()
    check_map("the pooling", x.shape[3], POOLED_MAP)
    for block in blocks:
        x = _run_block(x, block)
    check_map(STAGES[0].name, x.shape[3], STAGES[0].map_size)
    return x


def _convolve_stem(patches: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """7x7x7 at stride 2 as 7x7x8 with a tap of weight 0: rows of 392, which suit the products.

    Float32 in every precision, with TF32 products in all but fp32: bfloat16 would round the patch
    to 6 HU.
    """
    weight = F.pad(weight, (0, 0, 0, 1)).flatten(1)  # (128, 7 * 7 * 8)
    x = F.pad(patches, (0, 0, 3, 4, 3, 3, 3, 3))
    x = x.unfold(1, 7, 2).unfold(2, 7, 2).unfold(3, 8, 2)  # (n, 25, 25, 25, 1, 7, 7, 8)
    return _product_relu(x.flatten(4), weight, bias)


def _run_block(x: Tensor, block: Block) -> Tensor:
    """(n, s, s, s, c_in) -> (n, s / stride, ..., c_out); writes over `x`."""
    h = _product_relu(x, block.weight1, block.bias1)
    h = _convolve_3x3x3(h, block.weight2, block.bias2, block.stride)
    if block.shortcut_weight is None or block.shortcut_bias is None:
        out = x.flatten(0, 3).add_(block.bias3)
    else:
        kept = x[:, :: block.stride, :: block.stride, :: block.stride].flatten(0, 3)
        out = torch.addmm(block.shortcut_bias + block.bias3, kept, block.shortcut_weight.t())
    out = out.addmm_(h.flatten(0, 3), block.weight3.t()).relu_()
    return out.view(*h.shape[:4], -1)


def _convolve_3x3x3(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """Convolve with padding 1, and ReLU."""
    packed = x.view(torch.int64)  # several channels at a time are faster to copy
    packed = F.pad(packed, (0, 0, 1, 1, 1, 1, 1, 1))
    packed = packed.unfold(1, 3, stride).unfold(2, 3, stride).unfold(3, 3, stride)
    # (n, z, y, x, c, 3, 3, 3) -> (n, z, y, x, 27 * c)
    rows = packed.permute(0, 1, 2, 3, 5, 6, 7, 4).flatten(4).view(x.dtype)
    return _product_relu(rows, weight.flatten(1), bias)


def _product_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(..., in) times (out, in) -> (..., out), plus bias, then ReLU, as one operation."""
    # Not documented, but there from torch 1.12 on: the only way to cuBLAS's product with both.
    multiply = torch._addmm_activation  # pyright: ignore[reportPrivateImportUsage]
    return multiply(bias, x.flatten(0, 3), weight.t()).view(*x.shape[:4], -1)
