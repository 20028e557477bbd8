"""Compute FMCIB features at every seed, batched over all instances."""

from pathlib import Path

from mhubio.core import IO, Module

from oncofm.workflow.mhub.context import context_of


@IO.Config("weights", str, "", the="weights file; none: the bundled or fetched ones")
@IO.Config("sha256", str, "", the="SHA-256 that the weights must have; none: not checked here")
@IO.Config("profile", str, "mhub", the="preprocessing: mhub or paper")
@IO.Config("engine", str, "auto", the="auto, torch or openvino")
@IO.Config("device", str, "auto", the="auto, cpu, cuda or cuda:N")
@IO.Config("precision", str, "fp32", the="fp32, bf16, or on a GPU tf32")
@IO.Config("batch_size", int, 0, the="patches per pass through the network; 0: automatic")
class FeatureExtractor(Module):
    """The model is loaded once; what fails in one lesion is its own failure."""

    weights: str
    sha256: str
    profile: str
    engine: str
    device: str
    precision: str
    batch_size: int

    def check(self) -> None:
        """Refuse settings that cannot be, and start to load the model, before any work."""
        context = context_of(self.config)
        context.configure(
            weights=Path(self.weights) if self.weights else None,
            expected_sha256=self.sha256 or None,
            profile=self.profile,
            engine=self.engine,
            device=self.device,
            precision=self.precision,
            batch_size=self.batch_size or None,
        )
        context.start_loading()

    def task(self) -> None:
        """Sample the patches and run them through the encoder."""
        self.check()
        context_of(self.config).encode()
