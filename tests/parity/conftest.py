"""Workflows with an encoder that has no network."""

import pytest
from fakes import VoxelEncoder


class CountedEncoder(VoxelEncoder):
    """Knows how often it was loaded."""

    loads = 0


@pytest.fixture
def encoder(monkeypatch) -> CountedEncoder:
    """What every workflow of the test loads instead of the network."""
    import oncofm.encoders

    encoder = CountedEncoder()

    def load(*_, **__) -> CountedEncoder:
        encoder.loads += 1
        return encoder

    monkeypatch.setattr(oncofm.encoders, "load_encoder", load)
    monkeypatch.setattr("oncofm.encoders.weights.find_weights", lambda *_: None)
    return encoder
