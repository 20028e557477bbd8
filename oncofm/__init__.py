"""oncofm: cancer images to biomarkers with foundation models.

>>> from oncofm import extract_features
>>> table = extract_features("seeds.csv")  # doctest: +SKIP
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["__version__", "extract_features"]

if TYPE_CHECKING:
    from oncofm.workflow.features import extract_features


def __getattr__(name: str) -> object:
    # Resolved on first use, so that `import oncofm` and the command's help load no library.
    if name == "extract_features":
        from oncofm.workflow.features import extract_features

        return extract_features
    raise AttributeError(f"module 'oncofm' has no attribute {name!r}")
