"""A study as a folder, for whoever has to look into it."""

import gzip
import json
import urllib.request

import pydicom
import pytest
from nodes import RunnerHere, free_port, make_config, pacs, push, running
from pydicom.uid import Comprehensive3DSRStorage
from typer.testing import CliRunner

from oncofm.cli.pacs import app
from oncofm.errors import OutputNotWritableError, SettingInvalidError
from oncofm.pacs.errors import NodeError
from oncofm.pacs.papers import keep_papers

CANARY = "Kanarienvogel"


class RunnerThatKeeps(RunnerHere):
    """Keeps the papers of its jobs, which ends in the folder that `export` looks into."""

    def __init__(self, folder) -> None:
        super().__init__()
        self.folder = folder

    def run(self, order):
        end = super().run(order)
        keep_papers(order.output, self.folder, order.output.name, 1)
        return end


def named(study, folder):
    """Give the study a patient and a description."""
    folder.mkdir()
    for path in [*study.ct_files, study.seg_file]:
        dataset = pydicom.dcmread(path)
        dataset.PatientName = f"{CANARY}^Hansi"
        dataset.StudyDescription = f"CT {CANARY}"
        dataset.save_as(folder / path.name)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def ended(tmp_path_factory, study):
    """A node that runs no more: one study is in quarantine, one waits for its SEG."""
    folder = tmp_path_factory.mktemp("ended")
    there = {"GONE": pacs(free_port(), "GONE")}
    monitored = {"status_port": free_port()}
    config = make_config(folder, there, sending={"attempts": 1}, node=monitored)
    with running(config, runner=RunnerThatKeeps(config.node.folder)) as node:
        push(node.port, named(study, folder / "sent"))
        node.indexed(25)
        node.clock.now += 31
        node.wait_for("quarantined")
        uid = node.study.study_uid
        other = pydicom.dcmread(study.ct_files[0])
        other.StudyInstanceUID = "1.2.3.4"
        other.save_as(folder / "other.dcm")
        push(node.port, [folder / "other.dcm"])
        node.indexed(26)
        for name in ("index.html", "status.json", "metrics"):
            path = name.removeprefix("index.html")
            page = urllib.request.urlopen(f"http://127.0.0.1:{config.node.status_port}/{path}")
            (folder / name).write_bytes(page.read())
    return config, uid


def command(ended, name: str, *arguments: object):
    config = str(ended[0].node.folder.parent / "pacs.yml")
    words = [name, "--config", config, *map(str, arguments)]
    return CliRunner().invoke(app, words, standalone_mode=False)


@pytest.fixture(scope="module")
def exported(ended, tmp_path_factory):
    target = tmp_path_factory.mktemp("exported") / "new" / "for-support"
    done = command(ended, "export", ended[1], "--to", target, "--images")
    assert done.output == f"1 study in {target}; its README.txt says where patient data is\n"
    assert list(target.parent.iterdir()) == [target]  # nothing temporary is left
    return target


def test_everything_is_there(ended, exported):
    config, uid = ended
    found = sorted(
        str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()
    )
    images = [name for name in found if name.startswith(f"{uid}/images/")]
    reports = [name for name in found if name.startswith(f"{uid}/reports/")]
    assert len(images) == 25
    assert [name.split("/")[2:4] for name in reports] == [["1", "sr"]]
    rest = {name.removeprefix(f"{uid}/") for name in found} - {
        name.removeprefix(f"{uid}/") for name in (*images, *reports)
    }
    assert rest == set(
        ["README.txt", "audit.jsonl", "node.json", "study.json"]
        + [f"jobs/1/{name}" for name in ("cases.csv", "features.csv", "features.parquet")]
        + ["jobs/1/run.json"],
    )
    assert exported.stat().st_mode & 0o077 == 0
    assert pydicom.dcmread(exported / reports[0]).SOPClassUID == Comprehensive3DSRStorage
    spooled = {path.read_bytes() for path in (config.node.folder / "spool").rglob("*.dcm")}
    assert {(exported / name).read_bytes() for name in images} < spooled
    run = json.loads((exported / uid / "jobs/1/run.json").read_text())
    assert run["summary"]["exit_code"] in (0, 2)


def test_what_happened_to_it(ended, exported):
    uid = ended[1]
    study = json.loads((exported / uid / "study.json").read_text())
    assert (study["state"], study["reason"], study["files_gone"]) == ("quarantined", "refused", [])
    states = [step["state"] for step in study["history"] if not step["destination"]]
    assert states == ["received", "queued", "running", "sending", "quarantined"]
    (sent,) = [step for step in study["history"] if step["destination"]]
    assert (sent["destination"], sent["state"], sent["attempt"]) == ("GONE", "refused", 1)
    assert "does not answer" in sent["message"]
    (delivery,) = study["deliveries"]
    assert delivery["message"] == sent["message"]
    assert sent["at"].startswith("2027-01-15T08:00:3")
    assert {item["modality"] for item in study["objects"]} == {"CT", "SEG"}
    lines = [json.loads(line) for line in (exported / uid / "audit.jsonl").read_text().splitlines()]
    assert {line.get("study", uid) for line in lines} == {uid}
    events = [line["event"] for line in lines]
    assert (events.count("study"), events.count("delivery")) == (len(states), 1)
    node = json.loads((exported / "node.json").read_text())
    assert (node["studies"]["quarantined"], node["is_running"]) == (1, False)


def test_names_are_only_where_the_readme_says(exported, ended):
    uid = ended[1]
    with_names = {
        path.relative_to(exported / uid).parts[0]
        for path in exported.rglob("*")
        if path.is_file() and CANARY.encode() in path.read_bytes()
    }
    assert with_names <= {"reports", "images", "jobs"}
    assert {"reports", "images"} <= with_names
    readme = (exported / "README.txt").read_text()
    marked = [line.split()[0] for line in readme.splitlines() if "PATIENT DATA" in line]
    assert marked == ["STUDY/jobs/N/", "STUDY/reports/N/", "STUDY/images/"]


def test_names_are_on_no_page(ended):
    config, uid = ended
    for name in ("index.html", "status.json", "metrics"):
        text = (config.node.folder.parent / name).read_text()
        assert CANARY.casefold() not in text.casefold()
        assert "quarantined" in text
        assert "GONE" in text
    status = json.loads((config.node.folder.parent / "status.json").read_text())
    assert (status["studies"]["quarantined"], status["is_running"]) == (1, True)
    assert [one["study_uid"] for one in status["quarantined"]] == [uid]
    hour = status["throughput"]["hour"]
    assert hour.pop("received_bytes") > 25 * 5000
    assert hour == {"objects": 26, "jobs": 1, "studies": 0, "sent": 0, "failures": 2}


def test_show_says_the_same(ended, exported):
    shown = json.loads(command(ended, "show", ended[1]).output)
    written = json.loads((exported / ended[1] / "study.json").read_text())
    assert shown == {key: value for key, value in written.items() if key != "files_gone"}
    assert CANARY not in json.dumps(shown)


def test_by_state_without_images(ended, tmp_path):
    done = command(ended, "export", "--state", "quarantined", "--to", tmp_path / "out")
    assert done.exit_code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("README.txt", "node.json", ended[1]),
    }
    assert not list((tmp_path / "out").rglob("images"))
    both = ["1.2.3.4", "--state", "quarantined", "--to", tmp_path / "both"]
    assert command(ended, "export", *both).output.startswith("2 studies in")
    waiting = json.loads((tmp_path / "both/1.2.3.4/study.json").read_text())
    assert len(waiting["objects"]) == 1
    none = command(ended, "export", "--state", "done", "--to", tmp_path / "none")
    assert (none.output, none.return_value) == ("no study is done\n", 3)
    assert not (tmp_path / "none").exists()


def test_nothing_is_overwritten(ended, exported, tmp_path):
    before = sorted(exported.rglob("*"))
    error = command(ended, "export", ended[1], "--to", exported).exception
    assert isinstance(error, OutputNotWritableError)
    assert "exists already" in str(error)
    assert sorted(exported.rglob("*")) == before
    (tmp_path / "file").write_text("")
    error = command(ended, "export", ended[1], "--to", tmp_path / "file" / "out").exception
    assert isinstance(error, OutputNotWritableError)
    assert "cannot be written (File exists)" in str(error)


def test_full_disk_leaves_nothing(ended, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("oncofm.pacs.export.os.fsync", fail)
    error = command(ended, "export", ended[1], "--to", tmp_path / "out").exception
    assert "cannot be written (No space left on device); free space" in str(error)
    assert list(tmp_path.iterdir()) == []


def test_file_that_goes_meanwhile(ended, tmp_path, monkeypatch):
    """The node may delete what it does not need any more while it is copied."""
    from oncofm.pacs import export

    copy = export._copy
    monkeypatch.setattr(
        export,
        "_copy",
        lambda source, target: copy(
            source if target.suffix != ".csv" else source.with_name("gone"), target
        ),
    )
    command(ended, "export", ended[1], "--to", tmp_path / "out")
    study = json.loads((tmp_path / "out" / ended[1] / "study.json").read_text())
    assert study["files_gone"] == ["jobs/1/cases.csv", "jobs/1/features.csv"]


def test_wrong_arguments(ended, tmp_path):
    error = command(ended, "export", "--to", tmp_path / "out").exception
    assert isinstance(error, SettingInvalidError)
    assert str(error) == "Name the studies, or their state with --state."
    error = command(ended, "export", "1.2.3", "--to", tmp_path / "out").exception
    assert isinstance(error, NodeError)
    error = command(ended, "export", "--state", "odd", "--to", tmp_path / "out").exception
    assert "none of received, waiting" in str(error)
    assert not (tmp_path / "out").exists()


def test_rotated_and_damaged_log(ended, tmp_path):
    config, uid = ended
    log = config.node.folder / "audit.jsonl"
    before = log.read_text()
    try:
        log.unlink()
        packed = gzip.compress(before.encode())
        log.with_name("audit.jsonl.2.gz").write_bytes(packed)
        log.with_name("audit.jsonl.3.gz").write_bytes(packed[:-20])  # still being written
        log.write_text(
            f'{{"event": "later", "study": "{uid}"}}\n[]\nnull\n"{uid}"\n{{"half": \n\xff'
        )
        command(ended, "export", uid, "--to", tmp_path / "out")
    finally:
        log.write_text(before)
        for number in (2, 3):
            log.with_name(f"audit.jsonl.{number}.gz").unlink()
    lines = (tmp_path / "out" / uid / "audit.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["event"] == "study"
    assert json.loads(lines[-1])["event"] == "later"


def test_papers_of_the_last_try_stay(tmp_path):
    for text in ("first", "second"):
        (tmp_path / "work" / "sr").mkdir(parents=True, exist_ok=True)
        (tmp_path / "work" / f"{text}.csv").write_text(text)
        keep_papers(tmp_path / "work", tmp_path, "key", 1)
        kept = list((tmp_path / "jobs" / "key" / "1").iterdir())
        assert [path.read_text() for path in kept] == [text]
    keep_papers(tmp_path / "none", tmp_path, "key", 1)
    assert len(list((tmp_path / "jobs" / "key" / "1").iterdir())) == 1
    (tmp_path / "work" / "third.csv").write_text("third")
    (tmp_path / "file").write_text("")
    keep_papers(tmp_path / "work", tmp_path / "file", "key", 1)  # no report should wait for it
