"""Cases with labels, times and scores, made of seeded noise."""

import numpy as np

from oncofm.biomarkers.cohort import ClassCohort, SurvivalCohort


def cases(seed, n=60, steps=None):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, n)
    scores = random.random(n) * 0.7 + labels * 0.3
    return labels, scores if steps is None else np.round(scores * steps) / steps


def class_cases(seed, n=80, n_classes=4):
    random = np.random.default_rng(seed)
    labels = np.r_[np.arange(n_classes), random.integers(0, n_classes, n - n_classes)]
    scores = random.random((n, n_classes)) + np.eye(n_classes)[labels]
    return labels, scores / scores.sum(axis=1, keepdims=True)


def survival_cases(seed, n=80, decimals=2):
    """Exponential times with many ties at few decimals, about a third censored."""
    random = np.random.default_rng(seed)
    groups = random.integers(0, 2, n)
    times = random.exponential(3 / (1 + groups))
    ends = random.exponential(6, n)
    events = times <= ends
    return np.round(np.minimum(times, ends) + 0.1, decimals), events.astype(int), groups


def binary_cohort(n=60, groups=None):
    labels, good = cases(1, n=n)
    bad = np.random.default_rng(8).random(n)
    tables = {"good": good, "bad": bad}
    columns = {name: np.stack([1 - p, p], axis=1) for name, p in tables.items()}
    return ClassCohort(("no", "yes"), labels, columns, groups, 3), tables


def survival_cohort(seed=1):
    times, events, groups = survival_cases(seed)
    random = np.random.default_rng(seed)
    risks = {"good": groups + random.normal(size=80) * 0.5, "bad": random.normal(size=80)}
    return SurvivalCohort(times, events.astype(float), risks, None, 0)
