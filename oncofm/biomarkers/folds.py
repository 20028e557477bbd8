"""Folds that hold equal shares of each class, and never split a patient."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from oncofm.biomarkers.checks import missing_extra
from oncofm.errors import EvaluationError


def unit_numbers(groups: Any, n_cases: int) -> np.ndarray:
    """Return the number of each case's group; without groups, every case is one."""
    if groups is None:
        return np.arange(n_cases)
    names = np.asarray(groups).astype(str)
    if names.shape != (n_cases,):
        raise EvaluationError(f"There are {names.size} groups for {n_cases} cases; give one each.")
    return np.unique(names, return_inverse=True)[1]


def stratified_folds(
    strata: np.ndarray, units: np.ndarray, rows: np.ndarray, cv: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows to train with and those to hold out, `cv` times.

    Parameters
    ----------
    strata, units : numpy.ndarray
        Shape (n,) int, of all cases: what folds hold equal shares of, and what is never split.
    rows : numpy.ndarray
        Shape (m,) int: the cases to split.
    cv, seed : int
        Number of folds; of the shuffling.

    Raises
    ------
    EvaluationError
        If a stratum cannot fill the folds.
    MissingExtraError
        Without scikit-learn.
    """
    try:
        from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
    except ImportError as error:
        raise missing_extra("Fitting a head", error) from error
    of_rows, units = strata[rows], units[rows]
    present = np.unique(strata)
    fewest = min(len(np.unique(units[of_rows == stratum])) for stratum in present)
    if fewest < cv:
        raise EvaluationError(
            f"A class (or the cases with or without an event) has {fewest} cases or groups to "
            f"fill {cv} folds; take fewer folds or more cases."
        )
    alone = len(np.unique(units)) == len(units)
    to_keep = None if alone else units
    folds = (StratifiedKFold if alone else StratifiedGroupKFold)(
        cv, shuffle=True, random_state=seed
    )
    for train, test in folds.split(of_rows, of_rows, to_keep):
        if len(np.unique(of_rows[train])) < len(present) or not len(test):
            raise EvaluationError(
                f"{cv} folds leave a class out of the training folds; take fewer folds."
            )
        yield rows[train], rows[test]


def plain_folds(units: np.ndarray, cv: int, seed: int) -> np.ndarray:
    """Deal units to `cv` folds (fewer if there are fewer units): (n,) to (n,) int."""
    distinct, numbers = np.unique(units, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(distinct))
    return (order % cv)[numbers]
