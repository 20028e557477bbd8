"""How a node stands: the history that the database keeps, the command, the metrics."""

import json
import re
import shutil
import sqlite3
import subprocess

import pytest
from filled import CANARY, LATER, add_study, deliver, filled_node, uid
from nodes import START, FakeClock, make_config, pacs, running
from typer.testing import CliRunner

from oncofm.cli.pacs import app
from oncofm.pacs.care import Housekeeping, requeue
from oncofm.pacs.config_node import RetentionSection
from oncofm.pacs.database import DATABASE_FILE, open_database
from oncofm.pacs.errors import NodeError
from oncofm.pacs.history import steps, throughput, troubles
from oncofm.pacs.lock import is_served, sole_node
from oncofm.pacs.objects import digest
from oncofm.pacs.readable import size
from oncofm.pacs.spool import Spool
from oncofm.pacs.status import read_status
from oncofm.pacs.status_text import describe_status

DAY_S = 86_400.0


@pytest.fixture
def database(tmp_path):
    with open_database(tmp_path) as database:
        yield database


def key(number: int) -> str:
    return digest(uid(number))


# --- history ------------------------------------------------------------------------------


def test_database_notes_every_step(database):
    add_study(database, 1, "quarantined", START)
    database.update(key(1), START + 5, state="quarantined", reason="no_report")  # nothing new
    deliver(database, 1, "PACS", 9, START, "pending", "A700", "Later.")
    for after_s in (1, 2):  # the same answer again
        database.execute("UPDATE deliveries SET attempts = 9, changed_at = ?", START + after_s)
    database.execute("UPDATE deliveries SET state = 'sent', status = '0000', message = ''")
    database.execute("UPDATE deliveries SET attempts = 0, state = 'pending'")  # requeued
    found = [(step.destination, step.state, step.reason) for step in steps(database, key(1))]
    assert found == [
        ("", "received", ""),
        ("", "running", ""),
        ("", "quarantined", "no_report"),
        ("PACS", "pending", "A700"),
        ("PACS", "sent", "0000"),
    ]


def test_database_of_before_gets_a_history(tmp_path):
    with open_database(tmp_path) as database:
        add_study(database, 1, "done", START)
    with sqlite3.connect(tmp_path / DATABASE_FILE) as connection:
        for trigger in ("study_begins", "study_moves", "delivery_moves"):
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute("DROP TABLE history")
    connection.close()
    with open_database(tmp_path) as database:
        database.update(key(1), START, state="received")
        assert [step.state for step in steps(database, key(1))] == ["received"]


def test_throughput_is_of_its_time(database):
    for number, days in ((1, 0.0), (2, 0.5), (3, 2.0)):
        add_study(database, number, "done", START - days * DAY_S)
    add_study(database, 4, "quarantined", START)
    add_study(database, 5, "done", START)
    database.execute("UPDATE history SET reason = 'dropped' WHERE study_key = ?", key(5))
    hour, day = throughput(database, START - 3600), throughput(database, START - DAY_S)
    assert (hour.objects, hour.received_bytes, hour.jobs, hour.studies) == (3, 3000, 3, 1)
    assert (day.objects, day.jobs, day.studies, day.failures) == (4, 4, 2, 1)
    nothing = throughput(database, START + DAY_S)
    assert set(vars(nothing).values()) == {0}


def test_troubles_are_the_last_ones(database):
    for number in range(1, 31):
        add_study(database, number, "quarantined", START + number)
    add_study(database, 31, "waiting", START + 40)
    add_study(database, 32, "done", START + 40)
    found = troubles(database, START - 100, 20)
    assert [study_uid for study_uid, _ in found] == [uid(number) for number in range(30, 10, -1)]
    assert troubles(database, START + DAY_S, 20) == []


def test_history_goes_with_the_study(database, tmp_path):
    add_study(database, 1, "done", START)
    clock = FakeClock()
    spool, keep = Spool(tmp_path / "spool", 0), RetentionSection(records_days=1, reports_days=1)
    housekeeping = Housekeeping(database, spool, tmp_path, keep, clock)
    for folder in ("reports", "jobs"):
        (tmp_path / folder / key(1)).mkdir(parents=True)
    housekeeping.tidy()
    assert len(steps(database, key(1))) == 3
    clock.now += 2 * DAY_S
    housekeeping.tidy()
    assert steps(database, key(1)) == []
    assert not any((tmp_path / folder / key(1)).exists() for folder in ("reports", "jobs"))


# --- status -------------------------------------------------------------------------------


def test_status_in_words(tmp_path):
    with filled_node(tmp_path) as node:
        status = read_status(node.database, node.config, START)
        lines = describe_status(status).splitlines()
        assert re.fullmatch(r"ONCOFM \(oncofm .*, port \d+\) does not run", lines[0])
        assert lines[1].endswith("free, nothing is taken below 1 MB")
        assert lines[2:9] == [
            f"{state:<12} {number:>8}" for number, state in enumerate(status.studies, 1)
        ]
        assert lines[9] == (
            "last hour: objects received 28, jobs started 22, studies done 6, instances delivered "
            "2, failures 12"
        )
        assert lines[11] == (
            "PACS: 1 delivered, 1 pending; next try 2027-01-26T21:46:40+00:00; last answer: A700 "
            "The peer could not store it."
        )
        assert lines[-1].startswith("2027-01-15T07:59:50+00:00  delivery  ")
        assert lines[12].startswith("WEB: 1 seen, 0 pending, 0 fetched, 0 failed; It does not ans")
        assert len(lines) == 13 + 5
        assert CANARY not in "\n".join(lines)
        node.database.execute("DELETE FROM deliveries")
        nothing = describe_status(read_status(node.database, node.config, START)).splitlines()
        assert nothing[10:12] == ["ARCHIVE: nothing yet", "PACS: nothing yet"]


def test_destination_that_is_configured_no_more(tmp_path):
    with filled_node(tmp_path) as node:
        deliver(node.database, 20, "OLD", 77, START, "sent", "0000")
        found = read_status(node.database, node.config, START).destinations
        assert [(one.name, one.kind) for one in found][-1] == ("OLD", "removed")


def test_running_or_not(tmp_path):
    assert not is_served(tmp_path)
    with sole_node(tmp_path):
        assert is_served(tmp_path)
    assert not is_served(tmp_path)
    with sole_node(tmp_path):  # asking took nothing away
        pass


def test_audit_log_that_is_damaged(tmp_path):
    with filled_node(tmp_path) as node:
        log = node.config.node.folder / "audit.jsonl"
        events = ["null", "[]", '"x_failed"', '{"event": 5}', "[" * 100_000, "{", "\x00"]
        log.write_text("\n".join([*events, '{"event": "model_failed", "reason": "device"}', "{"]))
        found = read_status(node.database, node.config, START).troubles
        (event,) = [one for one in found if one.event == "model_failed"]
        assert (event.reason, event.message) == ("device", "")
        log.unlink()  # moved away to rotate it
        assert read_status(node.database, node.config, START).troubles


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (31_900_000_000, "31.9 GB"), (5e15, "5e+03 TB")],
)
def test_sizes(n_bytes, text):
    assert size(n_bytes) == text


# --- requeue ------------------------------------------------------------------------------


def test_requeue_is_now(database):
    add_study(database, 1, "queued", START)
    add_study(database, 2, "sending", START)
    deliver(database, 2, "PACS", 9, START, "pending", "", "It does not answer.")
    add_study(database, 3, "done", START)
    database.update(key(3), START, reason="no_rule")
    database.execute("UPDATE objects SET present = 1 WHERE study_key = ?", key(3))
    assert database.study(key(1)).due_at == LATER
    assert requeue(database, uid(1), START) == "queued"
    assert database.study(key(1)).due_at == 0
    assert requeue(database, uid(2), START) == "sending"
    (delivery,) = database.deliveries("1")
    assert (delivery.due_at, delivery.attempts, delivery.state) == (0, 0, "pending")
    assert requeue(database, uid(3), START) == "received"
    add_study(database, 4, "running", START)
    with pytest.raises(NodeError, match=r"is running; only what is waiting, .*can be tried again"):
        requeue(database, uid(4), START)


def test_requeue_says_that_the_node_does_not_run(tmp_path):
    with filled_node(tmp_path) as node:
        config = ["--config", str(node.config.node.folder.parent / "pacs.yml")]
        said = CliRunner().invoke(app, ["requeue", *config, uid(28)]).output
        assert said == "the study is sending now; it goes on when the node is started\n"
        listed = CliRunner().invoke(app, ["list", *config, "--json", "--state", "quarantined"])
        rows = [json.loads(line) for line in listed.output.splitlines()]
        assert {row["study_uid"] for row in rows} == {uid(number) for number in range(22, 28)}
        assert rows[0]["changed_at"] == "2027-01-15T07:59:42+00:00"


def test_real_node_is_seen_to_run(tmp_path):
    config = make_config(tmp_path, {"PACS": pacs(1)})
    with running(config) as node:
        assert read_status(node.node.database, config, START).is_running


# --- metrics ------------------------------------------------------------------------------

SAMPLE = re.compile(r"(?P<name>[a-z_]+)(?:\{(?P<labels>[^}]*)\})? (?P<value>[0-9.e+-]+)")
LABELS = {"state", "end", "destination", "source", "version"}
UNITS = ("_seconds", "_bytes", "_total")


def test_metrics_follow_the_rules_of_prometheus(tmp_path):
    with filled_node(tmp_path) as node:
        text = node.monitor.answer("/metrics").text
    kinds: dict[str, str] = {}
    helped: set[str] = set()
    seen: set[str] = set()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, meaning = line.split(" ", 3)[2:]
            assert meaning.endswith(".")
            helped.add(name)
        elif line.startswith("# TYPE "):
            name, kind = line.split(" ")[2:]
            assert name in helped
            assert name not in kinds
            kinds[name] = kind
        else:
            sample = SAMPLE.fullmatch(line)
            assert sample is not None, line
            name = sample["name"]
            assert kinds[name] in ("gauge", "counter")
            assert name.startswith("oncofm_pacs_")
            assert name.endswith("_total") == (kinds[name] == "counter")
            labels = dict(re.findall(r'([a-z]+)="([^"\\\n]*)"', sample["labels"] or ""))
            assert set(labels) <= LABELS
            assert not any("2.25." in value for value in labels.values())
            assert line not in seen
            seen.add(line)
            if "time" in name or "size" in name:
                assert name.removesuffix("_total").endswith(UNITS)
    assert set(kinds) == helped
    assert "oncofm_pacs_received_bytes_total 12345678901" in seen
    assert 'oncofm_pacs_deliveries{destination="ARCHIVE",state="refused"} 1' in seen
    assert 'oncofm_pacs_studies{state="quarantined"} 7' in seen
    assert "oncofm_pacs_queued_jobs 2" in seen
    assert 'oncofm_pacs_fetches{source="WEB",state="seen"} 1' in seen
    assert 'oncofm_pacs_last_poll_timestamp_seconds{source="WEB"} 1799999940' in seen
    assert "oncofm_pacs_job_seconds_total 12.5" in seen
    assert "oncofm_pacs_associations_refused_total 3" in seen
    if shutil.which("promtool"):
        subprocess.run(["promtool", "check", "metrics"], input=text, text=True, check=True)


def test_metrics_are_documented(tmp_path, request):
    with filled_node(tmp_path) as node:
        text = node.monitor.answer("/metrics").text
    names = set(re.findall(r"^# TYPE oncofm_pacs_(\w+)", text, re.MULTILINE))
    docs = (request.config.rootpath / "docs" / "pacs.md").read_text()
    table = docs[docs.index("Metrics, all with") : docs.index("Worth an alert")]
    assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|[^|]*\|", table, re.M)))) == names
