"""Turn features into biomarkers by heads: small models with a card of their own."""

from mhubio.core import IO, Module

from oncofm.errors import WorkflowInvalidError
from oncofm.workflow.job import load_heads
from oncofm.workflow.mhub.context import context_of


@IO.Config("heads", list, [], the="names of heads, or paths of their folders; none: no predictions")
@IO.Config("jitter", int, 0, the="shifted seeds per lesion, for how stable a prediction is")
class BiomarkerPredictor(Module):
    """A head that was made for other features is refused, never applied."""

    heads: list
    jitter: int

    def check(self) -> None:
        """Load the heads, before any work."""
        context = context_of(self.config)
        context.configure(heads=tuple(map(str, self.heads)), jitter=self.jitter)
        context.heads = load_heads(context.settings)

    def task(self) -> None:
        """Make sure that there are features to predict from; ResultExporter writes what is said."""
        if context_of(self.config).encoder is None:
            raise WorkflowInvalidError("BiomarkerPredictor needs FeatureExtractor before it.")
