"""Turn features into biomarkers by heads: small models with a card of their own."""

from mhubio.core import IO, Module

from oncofm.biomarkers.head import load_head
from oncofm.errors import WorkflowInvalidError
from oncofm.workflow.mhub.context import context_of
from oncofm.workflow.settings import MODEL


@IO.Config("heads", list, [], the="names of heads, or paths of their folders; none: no predictions")
class BiomarkerPredictor(Module):
    """A head that was made for other features is refused, never applied."""

    heads: list

    def check(self) -> None:
        """Load the heads, before any work."""
        context_of(self.config).heads = tuple(load_head(str(name), MODEL) for name in self.heads)

    def task(self) -> None:
        """Make sure that there are features to predict from; ResultExporter writes what is said."""
        if context_of(self.config).encoder is None:
            raise WorkflowInvalidError("BiomarkerPredictor needs FeatureExtractor before it.")
