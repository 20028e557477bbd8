"""Joining predictions with labels: by hand, and every way it is refused."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from oncofm.biomarkers.cohort import class_cohort, read_columns, survival_cohort, values_by_head
from oncofm.errors import EvaluationError, InputNotFoundError

IDS = ("case_id", "lesion_id")
PREDICTIONS = """case_id,lesion_id,head,class,probability,model
a,1,h,low,0.9,m
a,1,h,high,0.1,m
b,1,h,low,0.2,m
b,1,h,high,0.8,m
c,1,h,low,0.5,m
c,1,h,high,0.5,m
"""
LABELS = "case_id,lesion_id,label,patient\nb,1,high,P\na,1,low,P\n"
RISKS = "lesion_id,head,risk\n1,h,0.5\n2,h,-1e1\n1,g,3\n2,g,4\n"
TIMES = "lesion_id,time,event\n2,10,1\n1,20.5,0\n"


@pytest.fixture
def table(tmp_path):
    def write(text, name="t.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_columns(path)

    return write


def test_classes(table):
    cohort = class_cohort(table(PREDICTIONS), table(LABELS), IDS, "patient")
    assert cohort.classes == ("low", "high")
    assert cohort.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(cohort.probabilities["h"], [[0.2, 0.8], [0.9, 0.1]])
    assert cohort.groups is not None
    assert cohort.groups.tolist() == ["P", "P"]
    assert cohort.n_unlabelled == 1


MIXED = """case_id,lesion_id,head,class,probability,risk,risk_group,value,jitter_mean,n_jitter
a,1,h,low,0.9,,low,,0.8,5
a,1,h,high,0.1,,low,,0.2,5
a,1,cox,,,-1.5,,,,
a,1,size,,,,,12.5,,
b,1,h,low,0.2,,high,,,
b,1,h,high,0.8,,high,,,
b,1,cox,,,2.5,,,,
b,1,size,,,,,7,,
"""


def test_heads_of_every_sort_in_one_table(table, tmp_path):
    times = LABELS.replace("label", "event").replace("high", "1").replace("low", "0")
    times = times.replace("patient", "time").replace("P", "3")
    path = tmp_path / "mixed.parquet"
    pq.write_table(pyarrow.csv.read_csv(io.BytesIO(MIXED.encode())), path)
    for mixed in (table(MIXED), read_columns(path)):
        cohort = class_cohort(mixed, table(LABELS), IDS)
        assert (cohort.classes, list(cohort.probabilities)) == (("low", "high"), ["h"])
        assert survival_cohort(mixed, table(times), IDS).risks["cox"].tolist() == [2.5, -1.5]
        found = values_by_head(mixed, IDS)
        assert list(found) == ["h", "cox", "size"]
        assert found["h"][("a", "1"), "high"] == 0.1
        assert list(found["cox"].values()) == [-1.5, 2.5]
        assert list(found["size"].values()) == [12.5, 7]


def test_tables_without_the_sort_that_is_asked_for(table):
    lines = MIXED.splitlines()
    header, size = lines[0], [line for line in lines if "size" in line]
    only_size = table("\n".join([header, *size]))
    with pytest.raises(EvaluationError, match="No head of the predictions has a probability"):
        class_cohort(only_size, table(LABELS), IDS)
    with pytest.raises(EvaluationError, match="No head of the predictions has a risk"):
        survival_cohort(only_size, {**table(LABELS), "time": [1], "event": [1]}, IDS)
    empty = table("\n".join([header, "a,1,h,,,,,,,"]))
    with pytest.raises(
        EvaluationError, match="Head 'h' of the predictions has no risk, value, pro"
    ):
        values_by_head(empty, IDS)


def test_class_numbers(table):
    labels = LABELS.replace("high", "1").replace("low", "0")
    assert class_cohort(table(PREDICTIONS), table(labels), IDS).labels.tolist() == [1, 0]
    numbers = {"case_id": ["b", "a"], "lesion_id": [1, 1.0], "label": [1.0, False]}
    cohort = class_cohort(table(PREDICTIONS), numbers, IDS)
    assert cohort.labels.tolist() == [1, 0]
    assert cohort.groups is None


def test_survival(table):
    cohort = survival_cohort(table(RISKS), table(TIMES), ["lesion_id"])
    assert cohort.times.tolist() == [10, 20.5]
    assert cohort.events.tolist() == [1, 0]
    assert {name: values.tolist() for name, values in cohort.risks.items()} == {
        "h": [-10, 0.5],
        "g": [4, 3],
    }


def test_parquet(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"lesion_id": [1, 2], "time": [1.5, 2], "event": [True, False]}), path)
    assert read_columns(path)["event"] == [True, False]
    risks = {"lesion_id": ["1", "2"], "head": ["h", "h"], "risk": [0.1, None]}
    cohort = survival_cohort(risks, read_columns(path), ["lesion_id"])
    assert cohort.events.tolist() == [1, 0]
    assert np.isnan(cohort.risks["h"][1])


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("probability", "p", "predictions lacks probability; it has the columns 'case_id'"),
        ("a,1,h,high", "a,1,h,low", "Row 2 of the predictions repeats a case of head 'h'"),
        ("a,1,h,high,0.1,m\n", "", "1 of 2 labelled cases have no prediction of head 'h'"),
        ("b,1", "d,1", "the first in row 1 of the labels"),
        ("a,1,h,low", ",1,h,low", "Row 1 of the predictions has no case_id, lesion_id"),
        ("0.9", "much", "column probability holds text that is no number"),
        ("high", "low", "repeats a case"),
        ("c,1,h", "c,1,g", "labelled cases have no prediction of head 'g'"),
        ("c,1,h,low", "c,1,g,mid", "heads of the predictions have different classes"),
    ],
)
def test_refused_predictions(table, old, new, sentence):
    with pytest.raises(EvaluationError, match=sentence):
        class_cohort(table(PREDICTIONS.replace(old, new)), table(LABELS), IDS)


def test_one_class_in_the_predictions(table):
    text = "\n".join(line for line in PREDICTIONS.splitlines() if ",high," not in line)
    with pytest.raises(EvaluationError, match="one class only"):
        class_cohort(table(text), table(LABELS.replace("high", "low")), IDS)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (LABELS + "a,1,high,P\n", "Rows 2 and 3 of the labels are the same case"),
        (LABELS.replace("low", "medium"), "label of row 2 is no class of the predictions"),
        (LABELS.replace("low", ""), "label of row 2 is no class"),
        (LABELS.replace("label", "truth"), "labels lacks label"),
        (LABELS.replace("a,1,low,P", "a,1,low,"), "Row 2 of the labels has no patient"),
    ],
)
def test_refused_labels(table, labels, sentence):
    with pytest.raises(EvaluationError, match=sentence):
        class_cohort(table(PREDICTIONS), table(labels), IDS, "patient")


def test_refused_survival(table):
    with pytest.raises(EvaluationError, match="column event holds text"):
        survival_cohort(table(RISKS), table(TIMES.replace(",1\n", ",yes\n")), ["lesion_id"])
    with pytest.raises(EvaluationError, match="labels lacks time, event"):
        survival_cohort(table(RISKS), table(LABELS), ["lesion_id"])
    with pytest.raises(EvaluationError, match="Row 3 of the predictions repeats"):
        survival_cohort(table(RISKS.replace("g", "h")), table(TIMES), ["lesion_id"])
    with pytest.raises(EvaluationError, match="table of predictions has no rows"):
        survival_cohort({"lesion_id": [], "head": [], "risk": []}, table(TIMES), ["lesion_id"])


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("t.csv", "", "has no rows"),
        ("t.csv", "a,b\n", "has no rows"),
        ("t.csv", "a,a\n1,2\n", "has a column twice"),
        ("t.csv", "a,b\n1\n", "Row 1 of the table .* has 1 cells, the header 2"),
        ("t.csv", b"a\n\xff\n", "no UTF-8 CSV"),
        ("t.csv", 'a\n"1\n', "no UTF-8 CSV"),
        ("t.parquet", "a", "no readable Parquet"),
        ("t.xlsx", "a", "none of .csv, .parquet"),
    ],
)
def test_refused_tables(table, name, text, sentence):
    with pytest.raises(EvaluationError, match=sentence):
        table(text, name)


def test_absent_table(tmp_path):
    with pytest.raises(InputNotFoundError, match="does not exist"):
        read_columns(tmp_path / "t.csv")
