"""What people and monitoring see of a batch that runs."""

import io
import json
import shutil
import sys

import pytest

from oncofm.cli.progress import show_batch_progress
from oncofm.errors import OutputNotWritableError
from oncofm.workflow.batch.progress import BatchProgress, MetricsFile


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def case(state="done", reason="", n_done=2):
    return {"event": "case", "state": state, "reason": reason, "n_done": n_done, "n_lesions": 2}


@pytest.fixture
def progress():
    clock = Clock()
    progress = BatchProgress(clock=clock)
    progress.take({"event": "start", "n_cases": 100, "n_before": 20})
    for _ in range(8):
        progress.take(case())
    progress.take(case("failed", "time_limit", 0))
    progress.take(case("rejected", "no_seeds", 0))
    clock.now += 5.0
    return progress


def test_the_line_says_rates_what_is_left_and_what_failed(progress):
    line = progress.line()
    assert line == (
        "30/100 cases, 2.00 cases/s, 3.20 lesions/s, 0:00:35 left, 1 time_limit, 1 no_seeds"
    )


def test_nothing_is_divided_by_zero_before_the_first_case():
    progress = BatchProgress()
    progress.take({"event": "start", "n_cases": 3, "n_before": 0})
    assert progress.line() == "0/3 cases"


def test_metrics_are_what_prometheus_reads(progress):
    samples = {}
    for line in progress.metrics().splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            samples[name] = float(value)
    assert samples == {
        "oncofm_batch_cases": 100,
        "oncofm_batch_cases_before": 20,
        'oncofm_batch_cases_finished_total{state="done"}': 8,
        'oncofm_batch_cases_finished_total{state="failed"}': 1,
        'oncofm_batch_cases_finished_total{state="rejected"}': 1,
        'oncofm_batch_not_done_total{reason="no_seeds"}': 1,
        'oncofm_batch_not_done_total{reason="time_limit"}': 1,
        "oncofm_batch_lesions_done_total": 16,
        "oncofm_batch_seconds": 5,
        "oncofm_batch_finished": 0,
    }
    described = [line.split()[2] for line in progress.metrics().splitlines() if "# TYPE" in line]
    assert {name.split("{")[0] for name in samples} == set(described)


def test_the_file_is_written_every_few_seconds_and_at_the_end(progress, tmp_path):
    path = tmp_path / "oncofm.prom"
    file = MetricsFile(path, progress)
    file.refresh(at_once=False)
    first = path.read_text()
    progress.take(case())
    file.refresh(at_once=False)
    assert path.read_text() == first
    progress.take({"event": "end"})
    file.refresh(at_once=True)
    assert "oncofm_batch_finished 1" in path.read_text()
    assert [entry.name for entry in tmp_path.iterdir()] == ["oncofm.prom"]


def test_json_lines_and_metrics_together(tmp_path, capsys):
    with show_batch_progress(True, tmp_path / "m.prom") as report:
        report({"event": "start", "n_cases": 1, "n_before": 0})
        report(case())
        report({"event": "end"})
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["start", "case", "end"]
    assert 'finished_total{state="done"} 1' in (tmp_path / "m.prom").read_text()


def test_metrics_that_cannot_be_written(progress, tmp_path, caplog):
    """At first that is the user's error; later it does not end a batch of weeks."""
    file = MetricsFile(tmp_path / "metrics" / "oncofm.prom", progress)
    with pytest.raises(OutputNotWritableError, match=r"oncofm\.prom cannot be written"):
        file.refresh(at_once=True)
    (tmp_path / "metrics").mkdir()
    file = MetricsFile(tmp_path / "metrics" / "oncofm.prom", progress)
    file.refresh(at_once=True)
    shutil.rmtree(tmp_path / "metrics")
    file.refresh(at_once=True)
    assert "oncofm.prom cannot be written" in caplog.text


def test_progress_that_nobody_reads(monkeypatch):
    class Closed(io.StringIO):
        def write(self, _):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    said = pytest.raises(OutputNotWritableError, match=r"Nobody reads .* go on with --resume\.")
    with show_batch_progress(True, None) as report, said:
        report({"event": "start", "n_cases": 1, "n_before": 0})


def test_a_log_gets_a_line_now_and_then(tmp_path, capsys):
    with show_batch_progress(False, None) as report:
        report({"event": "start", "n_cases": 2, "n_before": 0})
        for _ in range(2):
            report(case())
        report({"event": "end"})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("2/2 cases")
