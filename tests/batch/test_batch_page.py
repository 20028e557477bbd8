"""The report of a large batch: counted block by block, short whatever was counted."""

import time

import numpy as np
import pyarrow as pa
import pytest
from results.pages import BINARY, SURVIVAL, manifest, parse
from test_batch_ledger import entry

from oncofm.errors import OutputNotWritableError
from oncofm.results.manifest import Attempt
from oncofm.results.table import ResultTable
from oncofm.workflow.batch.meter import Meter, sum_up
from oncofm.workflow.batch.page import PageTally
from oncofm.workflow.batch.usage import ItemUsage, ReaderUsage

N_CASES = 20_000
REASONS = ("no_seeds", "slices_missing", "time_limit")


def case_rows(start, stop):
    numbers = range(start, stop)
    reasons = [REASONS[n // 10 % 3] if n % 10 == 0 else "" for n in numbers]
    columns = {
        "level": ["case"] * len(reasons),
        "state": ["rejected" if reason else "done" for reason in reasons],
        "reason": reasons,
        "case_id": [f"1.2.{n}" for n in numbers],
        "item_id": [f"item-{n}" for n in numbers],
        "message": [f"Case 1.2.{n} is bad." if n % 10 == 0 else "" for n in numbers],
    }
    return ResultTable(pa.table(columns))


def prediction_rows(chances, percentiles, risks):
    n = len(chances)
    columns = {
        "head": ["malignancy", "malignancy", "survival"] * n,
        "class": ["benign", "malignant", None] * n,
        "probability": [p for chance in chances for p in (1 - chance, chance, None)],
        "risk": [value for risk in risks for value in (None, None, risk)],
        "value": pa.nulls(3 * n, pa.float64()),
        "risk_group": [
            g for c in chances for g in ("high" if c > 0.5625 else "low",) * 2 + (None,)
        ],
        "training_percentile": [p for each in percentiles for p in (each, each, None)],
    }
    return ResultTable(pa.table(columns))


@pytest.fixture
def numbers():
    random = np.random.default_rng(1)
    shape = (3, N_CASES)
    chances, percentiles, risks = random.random(shape)
    return chances.tolist(), (100 * percentiles).tolist(), (risks - 0.5).tolist()


def test_twenty_thousand_cases(tmp_path, numbers):
    started = time.process_time()
    tally = PageTally([BINARY, SURVIVAL])
    for start in range(0, N_CASES, 4096):
        stop = min(start + 4096, N_CASES)
        tally.add("cases", case_rows(start, stop))
        tally.add("predictions", prediction_rows(*(each[start:stop] for each in numbers)))
        tally.add("features", ResultTable(pa.table({})))
    entries = [entry(f"item-{n}", n) for n in range(N_CASES)]
    path = tmp_path / "report.html"
    tally.write(path, manifest(N_CASES), entries, 0)
    assert time.process_time() - started < 10
    assert path.stat().st_size < 100_000

    root = parse(path.read_text(encoding="utf-8"))
    groups = list(root.only(id="reasons").every("details"))
    assert [group.only(class_="count").text for group in groups] == [
        "667 cases", "667 cases", "666 cases",
    ]  # fmt: skip
    assert all(len(list(group.every("li"))) == 5 for group in groups)
    assert "Case 1.2.0 is bad." in groups[0].text
    assert "and 662 more" in groups[0].text
    binary, survival = root.only(id="predictions").every("article")
    chances, percentiles, risks = map(np.array, numbers)
    n_high, n_odd = int((chances > 0.5625).sum()), int((percentiles > 99).sum())
    assert f"high risk group ({n_high})" in binary.text
    assert f"low risk group ({N_CASES - n_high})" in binary.text
    assert f"{n_odd} of {N_CASES} lesions lie above 99" in binary.text
    quantiles = list(survival.every("td", class_="number"))
    expected = np.percentile(np.float32(risks), (5, 25, 50, 75, 95))
    assert [node.numbers[0] for node in quantiles] == pytest.approx(expected)


def test_what_is_out_of_range_or_of_no_head_is_left_out(tmp_path):
    tally = PageTally([SURVIVAL])
    tally.add("predictions", prediction_rows([0.5], [1.0], [0.25]))
    tally.write(tmp_path / "report.html", manifest(1), [], 2)
    root = parse((tmp_path / "report.html").read_text(encoding="utf-8"))
    (card,) = root.only(id="predictions").every("article")
    assert [node.numbers[0] for node in card.every("td", class_="number")] == [0.25] * 5
    assert not list(card.every(class_="percentiles"))
    assert "2 items are not computed yet" in root.text


def test_a_page_that_cannot_be_written(tmp_path):
    with pytest.raises(OutputNotWritableError, match=r"report.html cannot be written"):
        PageTally([]).write(tmp_path / "absent" / "report.html", manifest(), [], 0)


# --- what is measured ---------------------------------------------------------------------


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_a_meter_tells_waiting_from_writing():
    clock = Clock()
    usage = ReaderUsage()
    meter = Meter(3, usage, "worker", clock)

    def slow():
        for value in "ab":
            clock.now += 2.0
            yield value

    for _ in meter.waited(slow()):
        clock.now += 5.0
    with meter.writing():
        clock.now += 1.0
    meter.count(4, 9)
    attempt = meter.attempt()
    assert (attempt.seconds, attempt.waiting_s, attempt.writing_s) == (15.0, 4.0, 1.0)
    assert (attempt.n_cases, attempt.n_lesions, attempt.n_workers) == (4, 9, 3)
    assert (attempt.reading_s, attempt.bytes_read, attempt.slowest) == (0.0, None, [])
    assert list(attempt.peak_memory_mib) == ["main"]
    usage.add([ItemUsage("a", 2.0, 1.0, 80.0, 1000), ItemUsage("b", 3.0, 0.5, 90.0, 2000)])
    attempt = meter.attempt()
    assert (attempt.reading_s, attempt.held_up_s, attempt.bytes_read) == (5.0, 1.5, 3000)
    assert attempt.slowest == [("b", 3.0), ("a", 2.0)]
    assert attempt.peak_memory_mib["worker"] == 90.0
    total = sum_up([attempt])
    assert total.encoding_s == 10.0
    assert total.limited_by == "encoder"


def test_attempts_add_up():
    first = Attempt(
        started_at="2026-01-01T00:00:00+00:00",
        ended_at="2026-01-01T00:10:00+00:00",
        n_cases=10,
        n_lesions=20,
        n_workers=2,
        seconds=600.0,
        waiting_s=500.0,
        writing_s=10.0,
        reading_s=1000.0,
        held_up_s=1.0,
        bytes_read=1000,
        peak_memory_mib={"main": 900.0, "reader": 80.0},
    )
    changes = {
        "started_at": "2026-01-02T00:00:00+00:00",
        "ended_at": "2026-01-02T00:10:00+00:00",
        "n_workers": 4,
        "peak_memory_mib": {"main": 800.0, "reader": 120.0},
    }
    total = sum_up([first, first.model_copy(update=changes)])
    assert (total.n_cases, total.n_lesions, total.seconds) == (20, 40, 1200.0)
    assert (total.cases_per_s, total.lesions_per_s) == (0.0167, 0.0333)
    assert (total.started_at[:10], total.ended_at[:10]) == ("2026-01-01", "2026-01-02")
    assert (total.reading_s, total.held_up_s, total.bytes_read) == (2000.0, 2.0, 2000)
    assert total.peak_memory_mib == {"main": 900.0, "reader": 120.0}
    assert (total.n_workers, total.limited_by) == (4, "readers")
    unknown = {"reading_s": None, "held_up_s": None, "bytes_read": None}
    mixed = sum_up([first, first.model_copy(update=unknown)])
    assert (mixed.reading_s, mixed.bytes_read, mixed.limited_by) == (None, None, "cluster")
    of_a_cluster = {"peak_memory_mib": {"main": 900.0, "worker": 2000.0}}
    assert sum_up([first.model_copy(update=of_a_cluster)]).limited_by == "cluster"
    assert sum_up([]) is None
