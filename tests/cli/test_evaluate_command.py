"""``oncofm evaluate``: files in, JSON and figures out, one sentence for what is wrong."""

import csv
import json

import pytest
import typer
from cards import split_at, trained_on
from cohorts import binary_cohort, survival_cohort
from heads import write_head
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


def test_thresholds_of_cards_and_learning_curve(tmp_path, command):
    cohort, scores = write_classes(tmp_path)
    for name, n in (("good", 400), ("bad", 40)):
        changes = {"classes": ["no", "yes"], **split_at(0.6), **trained_on(n, fraction=n / 400)}
        write_head(tmp_path / name, **changes)
        (tmp_path / name / "head.safetensors").unlink()
    cards = ("--card", str(tmp_path / "good"), "--card", str(tmp_path / "bad"))
    code, said = command(*cards)
    assert code == 0, said.err
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    decision = found["models"][0]["decisions"][1]
    called = scores["good"] > 0.6
    assert (decision["origin"], decision["point"]["threshold"]) == ("card", 0.6)
    assert decision["point"]["true_positives"] == (called & (cohort.labels == 1)).sum()
    (curve,) = found["learning_curve"]
    points = curve["statistics"]["auc"]
    assert [(point["head"], point["n"], point["fraction"]) for point in points] == [
        ("bad", 40, 0.1),
        ("good", 400, 1),
    ]
    assert points[1]["value"] == found["models"][0]["metrics"]["auc"]["value"]
    assert (tmp_path / "out" / "learning_curve.png").is_file()
    code, _ = command(*cards, "--threshold", "0.3", "--no-figures")
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    origins = [decision["origin"] for decision in found["models"][0]["decisions"]]
    assert (code, origins) == (0, ["given", "youden"])


def test_cutoffs_of_cards(tmp_path, command):
    write_survival(tmp_path)
    for name in ("good", "bad"):
        write_head(tmp_path / name, kind="cox", classes=[], **split_at(0.25))
    cards = ("--card", str(tmp_path / "good"), "--card", str(tmp_path / "bad"))
    code, said = command(*cards, "--cutoff", "bad=0.1", "--no-figures")
    assert code == 0, said.err
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    groups = [(model["groups"]["cutoff"], model["groups"]["origin"]) for model in found["models"]]
    assert groups == [(0.25, "card"), (0.1, "given")]


def test_cards_that_do_not_fit(tmp_path, command):
    write_survival(tmp_path)
    write_head(tmp_path / "other", kind="cox", classes=[])
    code, said = command("--card", str(tmp_path / "other"))
    assert code == 1
    assert "The predictions have no head 'other', whose card was given" in said.err
    code, said = command("--card", "absent")
    assert code == 1
    assert "There are 0 cards of a head 'absent'" in said.err


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
