"""Distances to training features against the covariance written out, and what they mean."""

import numpy as np
import pytest
from heads import write_head
from safetensors.numpy import load_file, save_file
from scipy.stats import kstest, multivariate_normal
from sklearn.decomposition import PCA

from oncofm.biomarkers.card import HeadCard
from oncofm.biomarkers.head import Head, Layer, load_head
from oncofm.biomarkers.reference import make_reference
from oncofm.biomarkers.save_head import save_head
from oncofm.errors import EvaluationError, HeadInvalidError

D = 60


def draws(n, seed=0, d=D):
    """Three wide directions and noise, in units that differ by feature; always the same law."""
    law = np.random.default_rng(99)
    wide, scale, mean = law.normal(size=(3, d)), law.uniform(0.1, 9, d), law.normal(size=d) * 9
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, 3)) * [3, 2, 2] @ wide + rng.normal(size=(n, d))) * scale + mean


def reference(n=300, d=D, n_folds=10):
    return make_reference(draws(n, d=d), np.arange(n) % n_folds)


def test_distances_are_those_of_the_whole_covariance():
    known = reference()
    axes = known.axes.astype(float)
    residual = np.eye(D) - axes.T @ axes
    covariance = axes.T * known.variances @ axes + known.residual_variance * residual
    x = (draws(40, seed=1) - known.mean) / known.scale
    law = multivariate_normal(cov=covariance)  # pyright: ignore[reportArgumentType]
    expected = 2 * (law.logpdf(np.zeros(D)) - law.logpdf(x))
    np.testing.assert_allclose(known.squared_distances(draws(40, seed=1)), expected, rtol=1e-5)


def test_axes_and_variances_are_those_of_scikit_learn():
    x, known = draws(300), reference()
    oracle = PCA(16, svd_solver="full").fit((x - x.mean(axis=0)) / x.std(axis=0))
    np.testing.assert_allclose(known.variances, oracle.explained_variance_, rtol=1e-5)
    cosines = np.abs((known.axes * np.asarray(oracle.components_)).sum(axis=1))[:3]
    np.testing.assert_allclose(cosines, 1, atol=1e-6)


@pytest.mark.parametrize("d", [60, 900])
def test_percentiles_of_new_cases_are_uniform(d):
    """Also with more features than cases, where training cases themselves seem near."""
    percentiles = reference(400, d).percentiles(draws(400, seed=1, d=d))
    assert kstest(percentiles / 100, "uniform").statistic < 0.12
    assert reference(400, d).percentiles(draws(400, d=d)).mean() < percentiles.mean()


def test_noise_that_is_the_same_in_all_directions_has_its_own_variance():
    x = np.random.default_rng(0).normal(size=(4000, 40))
    known = make_reference(x, np.arange(4000) % 5)
    assert known.residual_variance[0] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_shifts_along_and_across_the_axes_are_far(axis):
    known = reference()
    along = 10 * np.sqrt(known.variances[axis]) * known.axes[axis] * known.scale
    assert known.percentiles(draws(50, seed=1) + along).min() == 100
    across = np.random.default_rng(axis).choice([-5, 5], D) * draws(300).std(axis=0)
    assert known.percentiles(draws(50, seed=1) + across).min() == 100


def test_the_middle_is_nearer_than_all():
    known = reference()
    assert known.percentiles(known.mean[None])[0] == 0


def test_values_that_no_float_can_square_are_far():
    assert reference().percentiles(np.full((1, D), 1e300))[0] == 100


@pytest.mark.parametrize(("n", "d"), [(12, 1), (12, 3), (6, 40), (40, 2)])
def test_few_cases_or_features(n, d):
    x = np.random.default_rng(0).normal(size=(n, d))
    known = make_reference(x, np.arange(n) % 3)
    percentiles = known.percentiles(x)
    assert percentiles.shape == (n,)
    assert percentiles.dtype == np.float64
    assert ((percentiles >= 0) & (percentiles <= 100)).all()


def test_a_feature_that_never_changed_and_now_does():
    x = draws(100)
    x[:, 5] = 3.0
    known = make_reference(x, np.arange(100) % 5)
    assert np.isfinite(known.quantiles).all()
    x[:, 5] = 300.0
    assert known.percentiles(x).min() == 100


def test_training_features_that_cannot_be_summarised():
    with pytest.raises(EvaluationError, match="1 folds of 20 cases leave 0"):
        make_reference(draws(20), np.zeros(20))
    with pytest.raises(EvaluationError, match="not finite"):
        make_reference(np.full((20, 3), np.nan), np.arange(20) % 2)


# --- beside a head -------------------------------------------------------------------------


def a_head(known):
    card = HeadCard(
        name="head",
        title="A test",
        kind="linear",
        model="fmcib",
        profile="mhub",
        weights_sha256="any",
        n_features=D,
        intended_use="tests",
        licence="MIT",
    )
    return Head(card, (Layer(np.ones((1, D)), np.zeros(1)),), known)


def test_a_saved_reference_is_the_same(tmp_path):
    known = reference()
    save_head(a_head(known), tmp_path / "head")
    loaded = load_head(str(tmp_path / "head"), "fmcib").reference
    assert loaded is not None
    x = draws(20, seed=3)
    np.testing.assert_array_equal(loaded.percentiles(x), known.percentiles(x))


def test_a_reference_of_4096_features_is_small(tmp_path):
    known = make_reference(np.random.default_rng(0).normal(size=(40, 4096)), np.arange(40) % 2)
    save_file({f"reference.{name}": array for name, array in vars(known).items()}, tmp_path / "a")
    assert (tmp_path / "a").stat().st_size < 400_000


def test_heads_without_one(tmp_path):
    write_head(tmp_path / "head")
    assert load_head(str(tmp_path / "head"), "fmcib").reference is None


def test_a_reference_of_other_features():
    with pytest.raises(HeadInvalidError, match="reference of 10 features; 60 were expected"):
        a_head(make_reference(draws(30, d=10), np.arange(30) % 3))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mean": None}, "reference.mean"),
        ({"mean": np.zeros(D - 1, np.float32)}, "do not fit each other"),
        ({"axes": np.zeros((3, D), np.float32)}, "do not fit each other"),
        ({"axes": np.zeros(D, np.float32)}, "do not fit each other"),
        ({"residual_variance": np.ones(2, np.float32)}, "do not fit each other"),
        ({"quantiles": np.ones(1, np.float32)}, "do not fit each other"),
        ({"quantiles": np.array([1, 3, 2], np.float32)}, "do not ascend"),
        ({"quantiles": np.array([1, np.nan], np.float32)}, "not finite"),
        ({"scale": np.zeros(D, np.float32)}, "not above 0"),
        ({"variances": -np.ones(16, np.float32)}, "not above 0"),
        ({"residual_variance": np.zeros(1, np.float32)}, "not above 0"),
        ({"mean": np.zeros(D)}, "not of the type float32"),
    ],
)
def test_references_that_cannot_be_used(tmp_path, changes, sentence):
    save_head(a_head(reference()), tmp_path / "head")
    file = tmp_path / "head" / "head.safetensors"
    arrays = load_file(file) | {f"reference.{name}": array for name, array in changes.items()}
    save_file({key: array for key, array in arrays.items() if array is not None}, file)
    with pytest.raises(HeadInvalidError, match=sentence):
        load_head(str(tmp_path / "head"), "fmcib")
