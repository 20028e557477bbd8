"""How far features are from those that a head was trained on.

Features are standardised. Along their main axes the distance counts in standard deviations of each
axis, across all other directions in one common one: the squared Mahalanobis distance of a
covariance of low rank plus a constant. As many features as FMCIB has vary far less freely than
they are many, so the constant is not their mean variance, which would drown the axes, but the one
that gives the squared residual of held-out cases the spread of a chi-squared variable (Box, Annals
of Mathematical Statistics 1954).

A training case is near to axes that were made with it. What is usual is therefore read off cases
that were held out.
"""

from dataclasses import dataclass

import numpy as np

from oncofm.biomarkers.checks import finite_matrix
from oncofm.errors import EvaluationError

_N_AXES = 16
_N_QUANTILES = 201
_MIN_VARIANCE = 1e-6
"""Of standardised features; less is rounding."""


@dataclass(frozen=True, eq=False)
class Reference:
    """A summary of the features that a head was trained on.

    Attributes
    ----------
    mean, scale : numpy.ndarray
        Shape (n_features,) float32: of the scaler.
    axes : numpy.ndarray
        Shape (k, n_features) float32: main axes of the standardised features, orthonormal rows.
    variances : numpy.ndarray
        Shape (k,) float32: along those axes.
    residual_variance : numpy.ndarray
        Shape (1,) float32: of every direction across them.
    quantiles : numpy.ndarray
        Shape (q,) float32: squared distances of held-out training cases at equal steps from 0 to
        100 %, ascending.

    Raises
    ------
    ValueError
        If the arrays do not fit each other, or hold numbers that cannot be.
    """

    mean: np.ndarray
    scale: np.ndarray
    axes: np.ndarray
    variances: np.ndarray
    residual_variance: np.ndarray
    quantiles: np.ndarray

    def __post_init__(self) -> None:
        arrays = [getattr(self, name) for name in ARRAYS]
        if any(array.dtype != np.float32 for array in arrays):
            raise ValueError("an array of the reference is not of the type float32")
        if not all(np.isfinite(array).all() for array in arrays):
            raise ValueError("the reference holds numbers that are not finite")
        fits = (
            self.axes.ndim == 2
            and self.mean.shape == self.scale.shape == self.axes.shape[1:]
            and self.variances.shape == self.axes.shape[:1]
            and self.residual_variance.shape == (1,)
            and self.quantiles.ndim == 1
            and len(self.quantiles) > 1
        )
        if not fits:
            shapes = ", ".join(f"{name} {getattr(self, name).shape}" for name in ARRAYS)
            raise ValueError(f"the arrays of the reference do not fit each other: {shapes}")
        if any((array <= 0).any() for array in (self.scale, self.variances, arrays[4])):
            raise ValueError("a scale or a variance of the reference is not above 0")
        if (np.diff(self.quantiles) < 0).any():
            raise ValueError("the quantiles of the reference do not ascend")

    def percentiles(self, features: np.ndarray) -> np.ndarray:
        """Compare distances with those of held-out training cases.

        Parameters
        ----------
        features : numpy.ndarray
            Shape (n, n_features), finite.

        Returns
        -------
        numpy.ndarray
            Shape (n,) float64: the percentage of training-like features that are nearer, 0 to 100.
        """
        steps = np.linspace(0, 100, len(self.quantiles))
        return np.interp(self.squared_distances(features), self.quantiles, steps)

    def squared_distances(self, features: np.ndarray) -> np.ndarray:
        """Compute squared Mahalanobis distances: shape (n, n_features) to (n,) float64."""
        with np.errstate(over="ignore", invalid="ignore"):
            within, across = _parts(self, features)
            distances = within + across / self.residual_variance.astype(np.float64)
        return np.where(np.isnan(distances), np.inf, distances)  # farther than a float can say


ARRAYS = ("mean", "scale", "axes", "variances", "residual_variance", "quantiles")
"""Names of the arrays of a `Reference`."""


def make_reference(features: np.ndarray, folds: np.ndarray) -> Reference:
    """Summarise training features.

    Parameters
    ----------
    features : numpy.ndarray
        Shape (n, n_features).
    folds : numpy.ndarray
        Shape (n,) int: each fold is measured with a summary of the others; two or more. Cases of
        one patient belong into one fold.

    Raises
    ------
    EvaluationError
        If the features are not finite, or fewer than two folds or two cases outside of a fold are
        there.
    """
    x = finite_matrix(features, "features")
    sizes = np.unique(folds, return_counts=True)[1]
    n_fewest = len(x) - int(sizes.max())
    if n_fewest < 2:
        raise EvaluationError(
            f"{len(sizes)} folds of {len(x)} cases leave {n_fewest} to compare with; take more."
        )
    n_axes = max(1, min(_N_AXES, x.shape[1] - 1, n_fewest - 1))
    within, across = np.empty(len(x)), np.empty(len(x))
    for fold in np.unique(folds):
        held_out = folds == fold
        without = _summary(x[~held_out], n_axes)
        within[held_out], across[held_out] = _parts(without, x[held_out])
    residual = np.float32(max(across.var() / (2 * max(across.mean(), 1e-12)), _MIN_VARIANCE))
    distances = within + across / np.float64(residual)
    quantiles = np.quantile(distances, np.linspace(0, 1, _N_QUANTILES))
    whole = _summary(x, n_axes)
    return Reference(
        mean=whole.mean,
        scale=whole.scale,
        axes=whole.axes,
        variances=whole.variances,
        residual_variance=np.array([residual]),
        quantiles=quantiles.astype(np.float32),
    )


@dataclass(frozen=True, eq=False)
class _Summary:
    """The part of a reference that needs no held-out cases."""

    mean: np.ndarray
    scale: np.ndarray
    axes: np.ndarray
    variances: np.ndarray


def _summary(x: np.ndarray, n_axes: int) -> _Summary:
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale <= 1e-12 * np.abs(mean)] = 1.0
    axes, variances = _main_axes((x - mean) / scale, n_axes)
    arrays = (mean, np.maximum(scale, 1e-30), axes, np.maximum(variances, _MIN_VARIANCE))
    return _Summary(*(array.astype(np.float32, order="C") for array in arrays))


def _main_axes(z: np.ndarray, n_axes: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the main axes of centred features, shape (k, n_features), and their variances."""
    n, n_features = z.shape
    if n_features <= n:
        squares, axes = np.linalg.eigh(z.T @ z)
        axes = axes.T[::-1][:n_axes]
    else:  # the same from the products of cases, which are fewer
        squares, cases = np.linalg.eigh(z @ z.T)
        axes = np.linalg.qr(z.T @ cases[:, ::-1][:, :n_axes])[0].T
    return axes, squares[::-1][:n_axes] / (n - 1)


def _parts(summary: Reference | _Summary, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances along the axes, in their variances, and across them: (n,) float64 each."""
    axes = summary.axes.astype(np.float64)
    standardised = (features.astype(np.float64) - summary.mean) / summary.scale
    along = standardised @ axes.T
    across = standardised - along @ axes
    return (along**2 / summary.variances).sum(axis=1), (across**2).sum(axis=1)
