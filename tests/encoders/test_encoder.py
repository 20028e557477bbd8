"""Batches of one size."""

import numpy as np
from fakes import VoxelEncoder, voxels_of

from oncofm.encoders.encoder import FixedBatches

PATCHES = np.random.default_rng(0).random((6, 1, 50, 50, 50), np.float32)


def test_every_batch_is_filled_up():
    inner = VoxelEncoder()
    encoder = FixedBatches(inner)

    np.testing.assert_array_equal(encoder.encode(PATCHES), voxels_of(PATCHES))
    assert inner.batches == [4, 4]
    np.testing.assert_array_equal(encoder.encode(PATCHES[:1]), voxels_of(PATCHES[:1]))
    assert inner.batches == [4, 4, 4]
    assert encoder.encode(PATCHES[:0]).shape == (0, 4096)


def test_it_says_what_the_other_encoder_says():
    inner = VoxelEncoder()
    encoder = FixedBatches(inner)

    for name in ("weights", "device", "precision", "engine", "n_features", "batch_size"):
        assert getattr(encoder, name) == getattr(inner, name)
