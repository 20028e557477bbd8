"""Turn features into biomarkers by heads: small models with a card of their own."""

from mhubio.core import IO, Module

from oncofm.biomarkers.head import load_head
from oncofm.workflow.mhub.session import session_of
from oncofm.workflow.settings import MODEL


@IO.Config("heads", list, [], the="names of heads, or paths of their folders; none: no predictions")
class BiomarkerPredictor(Module):
    """A head that was made for other features is refused, never applied."""

    heads: list

    def check(self) -> None:
        """Load the heads, before any work."""
        session_of(self.config).heads = tuple(load_head(name, MODEL) for name in self.heads)

    def task(self) -> None:
        """Make sure that the heads fit the features; the exporter writes what they say."""
        self.check()
        session_of(self.config).require_heads_fit()
