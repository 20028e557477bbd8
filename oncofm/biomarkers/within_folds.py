"""Statistics of scores that come from different fits, fold by fold.

Each takes targets, scores of shape (n, k) and the number of each case's fold. AUC and C-index
compare cases of one fold only: scores of different fits have different offsets.
"""

from collections.abc import Callable

import numpy as np

from oncofm.biomarkers.metrics import Statistic, balanced_accuracy_statistic


def auc_within_folds(target: np.ndarray, scores: np.ndarray, folds: np.ndarray) -> Statistic:
    """Compute the AUC; targets are 0 and 1, scores have shape (n, 1)."""

    def before(rows: np.ndarray) -> np.ndarray:
        return (target[rows, None] == 1) & (target[rows] == 0)

    return _concordance(before, scores[:, 0], folds)


def c_index_within_folds(target: np.ndarray, scores: np.ndarray, folds: np.ndarray) -> Statistic:
    """Compute Harrell's C; targets are (time, event), scores have shape (n, 1)."""
    times, events = target.T

    def before(rows: np.ndarray) -> np.ndarray:
        earlier = times[rows, None] < times[rows]
        censored_then = (times[rows, None] == times[rows]) & (events[rows] == 0)
        return (events[rows, None] == 1) & (earlier | censored_then)

    return _concordance(before, scores[:, 0], folds)


def _concordance(
    before: Callable[[np.ndarray], np.ndarray], scores: np.ndarray, folds: np.ndarray
) -> Statistic:
    """Share of pairs (i, j) of one fold, i before j, in which i has the higher score."""
    blocks = []
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        pairs = before(rows).astype(np.float64)
        differences = scores[rows, None] - scores[rows]
        blocks.append((rows, pairs, pairs * np.where(differences == 0, 0.5, differences > 0)))

    def statistic(counts: np.ndarray) -> np.ndarray:
        n_won, n_pairs = np.zeros(len(counts)), np.zeros(len(counts))
        for rows, pairs, won in blocks:
            drawn = counts[:, rows]
            n_won += ((drawn @ won) * drawn).sum(axis=1)
            n_pairs += ((drawn @ pairs) * drawn).sum(axis=1)
        return np.divide(n_won, n_pairs, out=np.full_like(n_won, np.nan), where=n_pairs > 0)

    return statistic


def accuracy(target: np.ndarray, scores: np.ndarray, folds: np.ndarray) -> Statistic:
    """Compute the share of cases whose class has the highest score; folds do not matter."""
    right = (scores.argmax(axis=1) == target).astype(np.float64)
    return lambda counts: counts @ right / counts.sum(axis=1)


def balanced_accuracy(target: np.ndarray, scores: np.ndarray, folds: np.ndarray) -> Statistic:
    """Compute the mean over classes of that share; folds do not matter."""
    return balanced_accuracy_statistic(target, scores.argmax(axis=1), scores.shape[1])
