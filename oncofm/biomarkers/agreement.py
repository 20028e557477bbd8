"""Agreement of repeated measurements: the intraclass correlation of test and retest.

Shrout and Fleiss, Psychological Bulletin 1979, case 3: the same occasions for every target.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from oncofm.biomarkers.bootstrap import LEVEL
from oncofm.biomarkers.checks import finite_matrix, missing_extra
from oncofm.errors import EvaluationError


@dataclass(frozen=True)
class IntraclassCorrelation:
    """ICC(3,1): consistency of a single measurement.

    Attributes
    ----------
    value, low, high : float
        With its interval by the F distribution.
    level : float
        Of the interval.
    mean_square_targets, mean_square_occasions, mean_square_error : float
        Of the two-way analysis of variance without replication.
    f, p : float
        Test of no correlation; infinite and 0 where the error is 0.
    n_targets, n_occasions : int
        Shape of the table.
    """

    value: float
    low: float
    high: float
    level: float
    mean_square_targets: float
    mean_square_occasions: float
    mean_square_error: float
    f: float
    p: float
    n_targets: int
    n_occasions: int


def intraclass_correlation(measurements: Any, level: float = LEVEL) -> IntraclassCorrelation:
    """Compute ICC(3,1) of a complete table.

    Parameters
    ----------
    measurements : array_like
        Shape (n_targets, n_occasions), two or more of each: a lesion per row, test and retest in
        columns.
    level : float
        Of the interval, between 0 and 1.

    Raises
    ------
    EvaluationError
        If a measurement is missing, the table is too small or all of it is one value.
    MissingExtraError
        If scipy is not installed.
    """
    if not 0 < level < 1:
        raise EvaluationError(f"The level {level:g} of an interval must lie between 0 and 1.")
    table = finite_matrix(measurements, "measurements")
    n, k = table.shape
    if n < 2 or k < 2:
        raise EvaluationError(
            f"An intraclass correlation needs two or more lesions measured twice or more; there "
            f"are {n} with {k}."
        )
    targets, occasions, error = _mean_squares(table)
    # What rounding leaves of a sum of squares is no variance.
    rounding = (np.finfo(np.float64).eps * np.abs(table).max() * 4) ** 2
    if max(targets, error) <= rounding:
        raise EvaluationError("All lesions have the same measurements; there is no correlation.")
    if error <= rounding:
        value, low, high, f, p = 1.0, 1.0, 1.0, float("inf"), 0.0
    else:
        f = targets / error
        value = (f - 1) / (f + k - 1)
        low, high, p = _interval(f, n, k, level)
    return IntraclassCorrelation(
        value=value,
        low=low,
        high=high,
        level=level,
        mean_square_targets=targets,
        mean_square_occasions=occasions,
        mean_square_error=error,
        f=f,
        p=p,
        n_targets=n,
        n_occasions=k,
    )


def _mean_squares(table: np.ndarray) -> tuple[float, float, float]:
    n, k = table.shape
    of_targets = table.mean(axis=1, keepdims=True)
    of_occasions = table.mean(axis=0, keepdims=True)
    mean = table.mean()
    residuals = table - of_targets - of_occasions + mean
    return (
        float(k * ((of_targets - mean) ** 2).sum() / (n - 1)),
        float(n * ((of_occasions - mean) ** 2).sum() / (k - 1)),
        float((residuals**2).sum() / ((n - 1) * (k - 1))),
    )


def _interval(f: float, n: int, k: int, level: float) -> tuple[float, float, float]:
    try:
        from scipy.stats import f as distribution
    except ImportError as error:
        raise missing_extra("The interval of an intraclass correlation", error) from error
    df_targets, df_error = n - 1, (n - 1) * (k - 1)
    upper = (1 + level) / 2
    f_low = f / distribution.ppf(upper, df_targets, df_error)
    f_high = f * distribution.ppf(upper, df_error, df_targets)
    return (
        float((f_low - 1) / (f_low + k - 1)),
        float((f_high - 1) / (f_high + k - 1)),
        float(distribution.sf(f, df_targets, df_error)),
    )
