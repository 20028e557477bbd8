"""What the report of a batch says, before it is a page."""

from dataclasses import dataclass

from oncofm.biomarkers.card import HeadCard
from oncofm.results.manifest import RunManifest
from oncofm.results.report.content import Download


@dataclass(frozen=True)
class Example:
    """One of those that ended for a reason.

    Attributes
    ----------
    name : str
        Case or series, or path of a file; of a lesion its case.
    item_id : str
        The item of the batch that it belongs to.
    message : str
        Its sentence.
    """

    name: str
    item_id: str
    message: str


@dataclass(frozen=True)
class ReasonGroup:
    """Everything that is not done, or was left out, for one reason.

    Attributes
    ----------
    level : str
        ``case``, ``lesion``, ``series``, ``file`` or ``output``.
    state, reason : str
        State and reason code.
    n : int
        How many there are.
    examples : tuple of Example
        The first of them.
    """

    level: str
    state: str
    reason: str
    n: int
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Distribution:
    """How numbers spread.

    Attributes
    ----------
    low, high : float
        Where the first bin begins and the last one ends.
    counts : tuple of int
        Of bins of equal width, at least one.
    quantiles : tuple of 5 float
        5th, 25th, 50th, 75th and 95th percentile.
    """

    low: float
    high: float
    counts: tuple[int, ...]
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class HeadFigures:
    """What a head says about all lesions.

    Attributes
    ----------
    card : HeadCard
        Of the head.
    n_lesions : int
        About which it said something.
    outputs : tuple of (str, Distribution)
        Each class, or the one quantity, and how its values spread; none without lesions.
    risk_groups : dict of str to int
        Lesions by risk group; empty where the head has no threshold.
    percentiles : Distribution or None
        Distances from the training data, as percentiles; None where the head does not know it.
    n_outliers : int
        Lesions that are out of distribution.
    """

    card: HeadCard
    n_lesions: int
    outputs: tuple[tuple[str, Distribution], ...] = ()
    risk_groups: dict[str, int] | None = None
    percentiles: Distribution | None = None
    n_outliers: int = 0


@dataclass(frozen=True)
class BatchPage:
    """Everything in the report of a batch.

    Attributes
    ----------
    manifest : RunManifest
        What ran, how fast, and how it ended.
    heads : tuple of HeadFigures
        In the order in which they were asked.
    reasons : tuple of ReasonGroup
        What is not done and what was left out.
    slowest : tuple of (str, float)
        Items that took longest to read, and their seconds.
    downloads : tuple of Download
        Files that lie beside the page.
    n_left : int
        Items that are not computed yet.
    """

    manifest: RunManifest
    heads: tuple[HeadFigures, ...] = ()
    reasons: tuple[ReasonGroup, ...] = ()
    slowest: tuple[tuple[str, float], ...] = ()
    downloads: tuple[Download, ...] = ()
    n_left: int = 0
