"""A cohort of which a third has a defect: every study ends as it must, and harms no other."""

import hashlib

import pandas as pd
import pytest
from batches import SmallEncoder, read_rows

from oncofm.demo.cohort import DEFECTS, ExpectedRow, write_cohort
from oncofm.workflow import job
from oncofm.workflow.batch import computers
from oncofm.workflow.batch.ledger import read_ledger
from oncofm.workflow.batch.readers import Readers
from oncofm.workflow.settings import Settings


def rows_found(output):
    return {
        ExpectedRow(
            row["level"], row["case_id"], row["state"], row["reason"], int(row["n_done"] or 0)
        )
        for row in read_rows(output / "cases.csv")
        if row["level"] != "lesion"
    }


def check(run, cases):
    """Every row that was expected, no other; every study an item of the ledger."""
    expected = {row for case in cases for row in case.expected}
    found = rows_found(run.output)
    assert found - expected == set()
    assert expected - found == set()
    with read_ledger(run.output) as ledger:
        entries = ledger.results()
    for case in cases:
        if case.defect != "no_images":
            worst = worst_of(case)
            assert (entries[case.study_uid].state, entries[case.study_uid].n_done) == worst, case
        else:
            assert entries[str(case.folder)].state == "no_case"
    features = pd.read_parquet(run.output / "features.parquet")
    assert len(features) == sum(row.n_done for row in expected)
    assert not features.duplicated(["case_id", "lesion_id"]).any()
    return features


def worst_of(case):
    rows = [row for row in case.expected if row.level == "case"]
    states = {row.state for row in rows}
    worst = next((s for s in ("failed", "rejected", "partial", "done") if s in states), "no_case")
    return worst, sum(row.n_done for row in rows)


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): hashlib.sha256(path.read_bytes()).digest() for path in files}


def test_a_cohort_is_the_same_every_time(tmp_path, batch):
    made = [
        write_cohort(tmp_path / name, 4, defect_rate=0.5, seed=5, shape=(32, 28, 16))
        for name in ("a", "b")
    ]
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert [case.is_healthy for case in made[0]].count(True) == 2
    assert len(DEFECTS) >= 15
    assert check(batch(tmp_path / "a"), made[0])["padded_fraction"].notna().all()


@pytest.mark.slow
def test_three_hundred_studies_of_which_ninety_have_a_defect(tmp_path, batch, monkeypatch):
    cases = write_cohort(tmp_path / "in", 300, defect_rate=0.3, seed=1)
    assert {case.defect for case in cases} == {"", *DEFECTS}
    assert sum(case.is_healthy for case in cases) == 210
    monkeypatch.setattr(computers, "Readers", Readers)  # processes, as in earnest
    run = batch(tmp_path / "in")
    assert run.result.exit_code == 2
    features = check(run, cases)
    encoder = SmallEncoder()
    monkeypatch.setattr(job, "start_loading", lambda *_: lambda: encoder)
    for case in cases:
        if case.is_healthy:
            job.run_job([case.folder], tmp_path / "alone", Settings())
            alone = pd.read_parquet(tmp_path / "alone" / "features.parquet")
            (row,) = case.expected
            own = features[features["case_id"] == row.case_id].reset_index(drop=True)
            pd.testing.assert_frame_equal(own.drop(columns="item_id"), alone)
