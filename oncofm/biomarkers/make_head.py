"""From a fit to a head: calibration, threshold, figures, card."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from oncofm.biomarkers.bootstrap import N_RESAMPLES, bootstrap
from oncofm.biomarkers.calibration import CalibrationMethod, Calibrator, fit_calibrator
from oncofm.biomarkers.card import Calibration, Figure, HeadCard, Threshold, TrainingData
from oncofm.biomarkers.head import LINKS, Head, Layer
from oncofm.biomarkers.problem import Problem
from oncofm.biomarkers.reference import make_reference
from oncofm.errors import HeadInvalidError

_MEASURED = ("calibration", "cross_validated", "validation")
"""Fields of the card that a fit fills or leaves empty; nobody else does."""


@dataclass(frozen=True, eq=False)
class Material:
    """All cases, and what was asked for.

    Attributes
    ----------
    x : numpy.ndarray
        Shape (n, n_features) float64.
    problem : Problem
        With the targets of all cases.
    units : numpy.ndarray
        Shape (n,) int: the group of each case.
    method : str
        Of calibration.
    seed : int
        Of the bootstrap.
    data : str
        Name of the cases.
    """

    x: np.ndarray
    problem: Problem
    units: np.ndarray
    method: CalibrationMethod
    seed: int
    data: str


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Cases, scored by fits that never saw them.

    Attributes
    ----------
    rows, folds : numpy.ndarray
        Shape (m,) int: which cases, ascending, and the fold that each was held out in.
    scores : numpy.ndarray
        Shape (m, n_scores) float64.
    """

    rows: np.ndarray
    folds: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True, eq=False)
class Choice:
    """A value of C, and the held-out cases that it was chosen on."""

    c: float
    seen: HeldOut

    def calibrator(self, material: Material) -> Calibrator:
        """Fit the calibration to the held-out cases."""
        target = material.problem.target[self.seen.rows]
        return fit_calibrator(material.method, self.seen.scores, target)

    def predicted(self, material: Material, scores: np.ndarray | None = None) -> np.ndarray:
        """Turn scores, else those of the held-out cases, into what is predicted: (m, k)."""
        calibrator = self.calibrator(material)
        scores = self.seen.scores if scores is None else scores
        scores = calibrator.slope * scores + calibrator.intercept
        values = LINKS[material.problem.kind](scores)
        return values if calibrator.table is None else calibrator.table(values)


def make_head(
    material: Material,
    choice: Choice,
    facts: Mapping[str, Any],
    *,
    rows: np.ndarray,
    folds: np.ndarray,
    held_out: str,
    settings: Mapping[str, float],
    n_groups: int | None,
    measured: Mapping[str, tuple[Figure, ...]],
) -> Head:
    """Fit the head with the chosen C, and write its card.

    Parameters
    ----------
    material, choice
        What to fit to and how; the held-out cases give calibration and threshold.
    facts : mapping
        Of the user, see `fit_head`.
    rows, folds : numpy.ndarray
        Shape (m,) int: the training cases, and folds for the reference.
    held_out : str
        What the held-out cases are.
    settings : mapping of str to float
        For the card.
    n_groups : int or None
        Of the training cases.
    measured : mapping of str to tuple of Figure
        By field of the card.
    """
    problem = material.problem
    calibrator = choice.calibrator(material)
    (layer,) = problem.fit(material.x[rows], problem.target[rows], [choice.c])
    layer = Layer(
        calibrator.slope * layer.weight, calibrator.slope * layer.bias + calibrator.intercept
    )
    training = TrainingData(
        data=material.data,
        n=len(rows),
        n_groups=n_groups,
        counts=problem.counts(rows),
        settings=dict(settings),
    )
    found = problem.facts | {
        "task": problem.task,
        "kind": problem.kind,
        "n_features": material.x.shape[1],
        "scaler": "folded",
        "training": training,
        **measured,
    }
    has_direction = problem.task == "survival" or facts.get("direction")
    if has_direction and problem.task != "multiclass" and "threshold" not in facts:
        value = float(np.median(choice.predicted(material)[:, -1]))
        found["threshold"] = Threshold(value=value, chosen=f"median prediction for {held_out}")
    if material.method != "none":
        found["calibration"] = Calibration(
            method=material.method,
            data=material.data,
            n=len(choice.seen.rows),
            made=held_out,
            slope=calibrator.slope,
            intercept=calibrator.intercept,
        )
    reference = make_reference(material.x[rows], folds)
    return Head(_card(found, facts), (layer,), reference, calibrator.table)


def figures(
    material: Material, seen: HeldOut, predicted: np.ndarray, *, how: str, calibrated: str
) -> tuple[Figure, ...]:
    """Measure held-out cases.

    Parameters
    ----------
    material, seen
        The cases.
    predicted : numpy.ndarray
        Shape (m, k) float64: what the calibrated head says about them.
    how, calibrated : str
        Who held them out, and how the calibration was.
    """
    problem = material.problem
    target = problem.target[seen.rows]
    # Platt's map changes no order within a fold, but its probabilities may round to equal ones.
    ranked = predicted[:, 1:] if material.method == "isotonic" else seen.scores
    statistics = {
        name: (make(target, ranked, seen.folds), _pairs(name, seen.folds))
        for name, make in problem.ranks.items()
    }
    if problem.brier is not None:
        note = "" if material.method == "none" else f", {calibrated}"
        statistics["brier"] = (problem.brier(target, predicted), note)
    found = []
    for name, (statistic, note) in statistics.items():
        estimate = bootstrap(
            statistic, len(seen.rows), seed=material.seed, groups=material.units[seen.rows]
        )
        found.append(
            Figure(
                statistic=name,
                value=estimate.value,
                ci_low=estimate.low,
                ci_high=estimate.high,
                n=len(seen.rows),
                data=material.data,
                method=f"{how}{note}; {N_RESAMPLES} bootstrap resamples, seed {material.seed}",
            )
        )
    return tuple(found)


def _pairs(name: str, folds: np.ndarray) -> str:
    within = name in ("auc", "c_index") and len(np.unique(folds)) > 1
    return ", pairs within a fold" if within else ""


def _card(found: dict[str, Any], facts: Mapping[str, Any]) -> HeadCard:
    if told := [key for key in facts if key in {*found, *_MEASURED} and key != "classes"]:
        raise HeadInvalidError(f"{', '.join(told)} of a fitted head cannot be given; leave it out.")
    given = {key: value for key, value in facts.items() if key != "data"}
    n_classes = len(found.get("classes", ()))
    if not isinstance(given.get("classes", []), list | tuple):
        raise HeadInvalidError("The classes in the facts are no list of names; write one.")
    if "classes" in given and len(given["classes"]) != n_classes:
        raise HeadInvalidError(
            f"{len(given['classes'])} names were given to {n_classes} classes; name all of them."
        )
    try:
        return HeadCard(**(found | given))
    except (ValidationError, TypeError) as error:
        problem = " ".join(str(error).split())
        raise HeadInvalidError(f"The card of the head cannot be made: {problem}.") from error
