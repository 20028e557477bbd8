"""What every statistic asks of its input, and the errors of an evaluation."""

from typing import Any

import numpy as np

from oncofm.errors import EvaluationError, MissingExtraError


def missing_extra(what: str, error: ImportError) -> MissingExtraError:
    """Make the error for `what` needing a package of the group ``biomarkers``."""
    return MissingExtraError(
        f"{what} needs the package {error.name}, which is not installed; install "
        "oncofm[biomarkers]."
    )


def finite_vector(values: Any, what: str, n_cases: int | None = None) -> np.ndarray:
    """Insist on one finite number per case.

    Parameters
    ----------
    values : array_like
        Shape (n,).
    what : str
        What they are, for the message.
    n_cases : int, optional
        How many there must be.

    Returns
    -------
    numpy.ndarray
        Shape (n,) float64.

    Raises
    ------
    EvaluationError
        If they are no numbers, not finite, none at all or of another number.
    """
    array = finite_array(values, what, n_cases)
    if array.ndim != 1:
        raise EvaluationError(f"The {what} have the shape {array.shape}; give one number per case.")
    return array


def finite_matrix(values: Any, what: str, n_cases: int | None = None) -> np.ndarray:
    """Insist on a row of finite numbers per case: shape (n, k) float64, as `finite_vector`."""
    array = finite_array(values, what, n_cases)
    if array.ndim != 2:
        raise EvaluationError(f"The {what} have the shape {array.shape}; give one row per case.")
    return array


def finite_array(values: Any, what: str, n_cases: int | None) -> np.ndarray:
    """Insist on finite numbers for every case, of any shape (n, ...)."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise EvaluationError(f"The {what} are not all numbers; correct the table.") from error
    if array.ndim == 0 or array.size == 0:
        raise EvaluationError(f"There are no {what}; give at least one case.")
    if n_cases is not None and len(array) != n_cases:
        raise EvaluationError(
            f"There are {len(array)} {what} for {n_cases} cases; give one for each."
        )
    faulty = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if faulty.any():
        raise EvaluationError(
            f"{int(faulty.sum())} of {len(array)} {what} are missing or not finite, the first in "
            f"case {int(faulty.argmax()) + 1}; correct or remove those cases."
        )
    return array


def binary_labels(values: Any, what: str = "labels") -> np.ndarray:
    """Insist on 0 and 1 (or booleans), both present.

    Returns
    -------
    numpy.ndarray
        Shape (n,) bool.

    Raises
    ------
    EvaluationError
        If there are other values, or one class only.
    """
    array = zero_or_one(values, what)
    if array.all() or not array.any():
        raise EvaluationError(
            f"All {len(array)} {what} are {int(array[0])}; cases of both classes are needed."
        )
    return array


def zero_or_one(values: Any, what: str) -> np.ndarray:
    """Insist on 0 and 1 (or booleans): shape (n,) bool."""
    array = finite_vector(values, what)
    if not np.isin(array, (0.0, 1.0)).all():
        raise EvaluationError(f"The {what} hold values other than 0 and 1; recode them.")
    return array == 1.0


def class_indices(values: Any, n_classes: int) -> np.ndarray:
    """Insist on class numbers 0 ... n_classes - 1, at least two of them present.

    Returns
    -------
    numpy.ndarray
        Shape (n,) int64.

    Raises
    ------
    EvaluationError
        If there are other values, or one class only.
    """
    array = finite_vector(values, "labels")
    if not np.isin(array, np.arange(n_classes)).all():
        raise EvaluationError(
            f"The labels hold values other than the class numbers 0 to {n_classes - 1}; "
            "recode them."
        )
    if (array == array[0]).all():
        raise EvaluationError(
            f"All {len(array)} labels are {int(array[0])}; cases of two classes are needed."
        )
    return array.astype(np.int64)


def probabilities(values: Any, n_cases: int, n_classes: int | None = None) -> np.ndarray:
    """Insist on probabilities: shape (n,), or (n, n_classes) with rows that sum to 1.

    Raises
    ------
    EvaluationError
        If any lies outside 0 to 1, or a row does not sum to 1 within 1e-3.
    """
    if n_classes is None:
        array = finite_vector(values, "probabilities", n_cases)
    else:
        array = finite_matrix(values, "probabilities", n_cases)
        if array.shape[1] != n_classes:
            raise EvaluationError(
                f"There are {array.shape[1]} probabilities per case for {n_classes} classes; "
                "give one for each."
            )
    if array.min() < 0 or array.max() > 1:
        raise EvaluationError(
            f"The probabilities reach from {array.min():g} to {array.max():g}; they must lie "
            "between 0 and 1."
        )
    if array.ndim == 2 and np.abs(array.sum(axis=1) - 1).max() > 1e-3:
        raise EvaluationError("The probabilities of a case do not sum to 1; correct the table.")
    return array
