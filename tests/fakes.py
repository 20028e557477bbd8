"""An encoder without a network: its features are voxels of the patch, so a test can tell them."""

import numpy as np

from oncofm.encoders.encoder import Weights

N_FEATURES = 4096
_STEP = 30


class VoxelEncoder:
    """Feature i is voxel 30 i of the flattened patch."""

    weights = Weights("fmcib", None, "0" * 64, "none", random_seed=0)
    device = "cpu"
    precision = "fp32"
    engine = "voxels"
    n_features = N_FEATURES
    batch_size = 4

    def __init__(self) -> None:
        self.batches: list[int] = []

    def encode(self, patches: np.ndarray) -> np.ndarray:
        self.batches.append(len(patches))
        return voxels_of(patches)


def voxels_of(patches: np.ndarray) -> np.ndarray:
    return patches.reshape(len(patches), -1)[:, : N_FEATURES * _STEP : _STEP].astype(np.float32)
