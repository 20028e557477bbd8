"""MONAI's network, the oracle for everything that computes here."""

import os
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture(scope="session")
def openvino() -> ModuleType:
    """OpenVINO; without it the test is skipped, or fails if ONCOFM_REQUIRE_TOOLS=1."""
    from oncofm.encoders.openvino_engine import import_openvino
    from oncofm.errors import EngineError

    try:
        return import_openvino()
    except EngineError as error:
        message = f"PACKAGE MISSING: {error} That engine goes untested."
        if os.environ.get("ONCOFM_REQUIRE_TOOLS") == "1":
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="session")
def monai_network() -> nn.Module:
    """FMCIB's network as MONAI builds it after ``torch.manual_seed(0)``; not to be changed."""
    from monai.networks.nets.resnet import resnet50

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return resnet50(
            pretrained=False,
            n_input_channels=1,
            widen_factor=2,
            conv1_t_stride=2,
            feed_forward=False,
            bias_downsample=True,
        ).eval()


@pytest.fixture(scope="session")
def patches() -> Tensor:
    """Eight patches, (8, 1, 50, 50, 50), from grainy and dark to smooth and bright."""
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand((8, 1, 10, 10, 10), generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(50, 50, 50), mode="trilinear")
    brightness = torch.linspace(0.1, 0.8, 8).view(8, 1, 1, 1, 1)
    return brightness * smooth + (1 - brightness) * torch.rand(smooth.shape, generator=generator)


@pytest.fixture(scope="session")
def lifelike_state(monai_network, patches) -> dict[str, Tensor]:
    """The same convolutions with batch norms as training leaves them, not as they start.

    Their statistics are those of `patches`, so that the signal reaches the features.
    """
    generator = torch.Generator().manual_seed(1)
    state = dict(monai_network.state_dict())
    for key, value in state.items():
        if "running" in key or "num_batches" in key:
            state[key] = value.clone()
        elif value.ndim == 1:
            low, high = (0.5, 1.5) if key.endswith("weight") else (-0.5, 0.5)
            if "bn3.weight" in key:  # strong branches of random weights would amplify rounding
                low, high = 0.05, 0.15
            state[key] = torch.empty_like(value).uniform_(low, high, generator=generator)
    norms = [module for module in monai_network.modules() if isinstance(module, nn.BatchNorm3d)]
    for norm in norms:
        norm.momentum = None  # the plain mean, here of one batch
    run_monai(monai_network.train(), state)(patches)
    monai_network.eval()
    for norm in norms:
        norm.momentum = 0.1
    return state


@pytest.fixture(scope="session")
def lifelike_features(monai_network, lifelike_state, patches) -> Tensor:
    """What MONAI's network makes of `patches` with `lifelike_state`, (8, 4096)."""
    return run_monai(monai_network, lifelike_state)(patches)


def run_monai(network: nn.Module, state: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """MONAI's network with other weights, without a copy of them."""

    def run(patches: Tensor) -> Tensor:
        with torch.inference_mode():
            return torch.func.functional_call(network, state, (patches,))

    return run
