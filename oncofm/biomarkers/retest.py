"""Whether a prediction repeats: the same lesions, imaged twice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from oncofm.biomarkers.agreement import IntraclassCorrelation, intraclass_correlation
from oncofm.biomarkers.bootstrap import LEVEL
from oncofm.biomarkers.cohort import Columns, values_by_head
from oncofm.errors import EvaluationError


@dataclass(frozen=True)
class RetestAgreement:
    """Agreement of one head, for one class (empty for a risk)."""

    head: str
    class_name: str
    correlation: IntraclassCorrelation


def retest_agreement(
    test: Columns, retest: Columns, ids: Sequence[str], level: float = LEVEL
) -> tuple[RetestAgreement, ...]:
    """Compute ICC(3,1) of every head and class over the lesions of two tables.

    Parameters
    ----------
    test, retest : mapping of str to sequence
        Predictions as for `oncofm.biomarkers.cohort.class_cohort` or ``survival_cohort``.
    ids : sequence of str
        Columns that together name a lesion, the same in both tables.
    level : float
        Of the intervals, between 0 and 1.

    Raises
    ------
    EvaluationError
        If the tables differ in lesions, heads or classes, or a correlation is undefined.
    """
    first, second = values_by_head(test, ids), values_by_head(retest, ids)
    if set(first) != set(second):
        raise EvaluationError("Test and retest have different heads; predict both with the same.")
    found = []
    for head, said in first.items():
        alone = len(set(said) ^ set(second[head]))
        if alone:
            raise EvaluationError(
                f"{alone} of the lesions or classes of head {head!r} are in only one of test and "
                "retest; give both tables the same."
            )
        for name in dict.fromkeys(name for _, name in said):
            cases = [key for key in said if key[1] == name]
            pairs = np.array([[said[key], second[head][key]] for key in cases])
            found.append(RetestAgreement(head, name, intraclass_correlation(pairs, level)))
    return tuple(found)
