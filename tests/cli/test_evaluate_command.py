"""``oncofm evaluate``: files in, JSON and figures out, one sentence for what is wrong."""

import csv
import json

import pytest
import typer
from cohorts import binary_cohort, survival_cohort
from sklearn.metrics import roc_auc_score

from oncofm.cli.evaluate import evaluate
from oncofm.cli.process import guarded

QUICK = ("--resamples", "50", "--permutations", "50")


@pytest.fixture
def command(tmp_path, capsys):
    app = typer.Typer(rich_markup_mode=None)
    app.command()(evaluate)

    def call(*options):
        arguments = [str(tmp_path / "p.csv"), str(tmp_path / "l.csv"), "-o", str(tmp_path / "out")]
        code = guarded(lambda: app([*arguments, *QUICK, *options], standalone_mode=False), "oncofm")
        return code, capsys.readouterr()

    return call


def write(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def write_classes(folder):
    cohort, scores = binary_cohort()
    rows = [
        (case, head, name, p[case] if name == "yes" else 1 - p[case])
        for head, p in scores.items()
        for case in range(60)
        for name in ("no", "yes")
    ]
    write(folder / "p.csv", [("lesion_id", "head", "class", "probability"), *rows])
    labels = [(case, ("no", "yes")[label], case // 2) for case, label in enumerate(cohort.labels)]
    write(folder / "l.csv", [("lesion_id", "label", "patient"), *labels])
    return cohort, scores


def write_survival(folder):
    cohort = survival_cohort()
    rows = [(i, head, risk) for head, risks in cohort.risks.items() for i, risk in enumerate(risks)]
    write(folder / "p.csv", [("lesion_id", "head", "risk"), *rows])
    truth = zip(range(80), cohort.times, cohort.events.astype(int), strict=True)
    write(folder / "l.csv", [("lesion_id", "time", "event"), *truth])


def test_classes(tmp_path, command):
    cohort, scores = write_classes(tmp_path)
    code, said = command("--group", "patient", "--threshold", "0.4")
    assert code == 0, said.err
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    auc = found["models"][0]["metrics"]["auc"]
    assert auc["value"] == pytest.approx(roc_auc_score(cohort.labels, scores["good"]))
    assert found["models"][0]["decisions"][0]["point"]["threshold"] == 0.4
    assert (found["n_cases"], found["n_groups"]) == (60, 30)
    assert f"good: auc {auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]" in said.out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "calibration.png",
        "evaluation.json",
        "roc.png",
    ]


def test_survival(tmp_path, command):
    write_survival(tmp_path)
    code, said = command("--cutoff", "good=0.5", "--horizon", "3", "--no-figures")
    assert code == 0, said.err
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    groups = found["models"][0]["groups"]
    assert (groups["cutoff"], groups["horizon"], groups["origin"]) == (0.5, 3, "given")
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_retest(tmp_path, command):
    write_survival(tmp_path)
    retest = (tmp_path / "p.csv").read_text(encoding="utf-8")
    (tmp_path / "again.csv").write_text(retest, encoding="utf-8")
    code, said = command("--no-figures", "--retest", str(tmp_path / "again.csv"))
    assert code == 0, said.err
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert [pair["correlation"]["value"] for pair in found["retest"]] == [1, 1]
    assert "good: retest ICC(3,1) 1.000 [1.000, 1.000]" in said.out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--cutoff", "good"), "--cutoff good is not of the form HEAD=RISK"),
        (("--cutoff", "good=nan"), "not of the form"),
        (("--cutoff", "other=1"), "--cutoff names the head 'other'"),
        (("--id", "study"), "The table of predictions lacks study"),
        (("--group", "patient"), "The table of labels lacks patient"),
    ],
)
def test_refused(tmp_path, command, options, sentence):
    write_survival(tmp_path)
    code, said = command(*options)
    assert code == 1
    assert sentence in said.err


def test_absent_table(command):
    code, said = command()
    assert code == 1
    assert "p.csv does not exist" in said.err
