"""Batches from end to end, in one process: what they leave, and how they go on."""

import contextlib
import json
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from batches import (
    ReadersHere,
    leftovers,
    read_rows,
    tables_of,
    write_manifest,
    write_tiny_study,
    write_volume,
)
from results.pages import parse

from oncofm.errors import (
    BatchError,
    InputNotFoundError,
    OncofmError,
    OutputNotWritableError,
    SetupError,
)
from oncofm.workflow import job
from oncofm.workflow.batch import computers, writer
from oncofm.workflow.batch.ledger import open_ledger, read_ledger
from oncofm.workflow.batch.merge import merge_batches
from oncofm.workflow.batch.options import BatchOptions
from oncofm.workflow.batch.plan import plan_items
from oncofm.workflow.batch.status import batch_status
from oncofm.workflow.settings import Settings


def features_of(output):
    return pd.read_parquet(output / "features.parquet")


def test_every_study_gives_what_it_gives_alone(batch, studies, tmp_path, monkeypatch):
    run = batch(studies)
    assert run.result.exit_code == 0
    features = features_of(run.output)
    monkeypatch.setattr(job, "start_loading", lambda *_: lambda: run.encoder)
    for folder in sorted(studies.iterdir()):
        job.run_job([folder], tmp_path / folder.name, Settings())
        alone = features_of(tmp_path / folder.name)
        work = json.loads((tmp_path / folder.name / "run.json").read_text())["throughput"]
        assert (work["n_cases"], work["n_lesions"], work["attempts"]) == (1, 3, [])
        assert work["lesions_per_s"] == pytest.approx(3 / work["seconds"], rel=0.01)
        own = features[features["case_id"] == alone["case_id"][0]].reset_index(drop=True)
        assert own.pop("item_id").tolist() == alone["study_uid"].tolist()
        pd.testing.assert_frame_equal(own, alone)
    assert len(features) == 15
    manifest = json.loads((run.output / "run.json").read_text())
    assert manifest["summary"]["cases"]["done"] == 5
    assert manifest["summary"]["lesions"]["done"] == 15
    assert manifest["inputs"]["series_uids"] == sorted(set(features["series_uid"]))
    assert leftovers(run.output) == []


def test_events(batch, studies):
    events = batch(studies).events
    assert [event["event"] for event in events] == ["start", *["case"] * 5, "end"]
    assert events[0] == {"event": "start", "n_cases": 5, "n_lesions": None, "n_before": 0}
    assert {(event["state"], event["n_done"]) for event in events[1:-1]} == {("done", 3)}
    assert events[-1]["exit_code"] == 0


# --- going on -----------------------------------------------------------------------------


def test_what_is_done_is_not_done_again(batch, studies):
    first = batch(studies)
    again = batch(studies, resume=True)
    assert again.n_computed == 0
    assert again.tables == first.tables
    assert again.result.exit_code == 0


def test_a_limit_and_the_rest(batch, studies):
    whole = batch(studies, "whole")
    first = batch(studies, limit=2)
    assert (first.n_computed, first.result.exit_code) == (2, 2)
    assert len(first.rows("case")) == 2
    rest = batch(studies, resume=True)
    assert (rest.n_computed, rest.result.exit_code) == (3, 0)
    assert rest.tables == whole.tables


def test_without_resume_results_are_left_alone(batch, studies):
    before = batch(studies).tables
    with pytest.raises(BatchError, match=r"holds results of a batch; go on with it by --resume"):
        batch(studies)
    assert before == batch(studies, resume=True).tables


def test_only_what_changed_is_computed_again(batch, studies, tmp_path):
    batch(studies)
    path = studies / "study-1" / "ct" / "slice-0000.dcm"
    path.unlink()
    shutil.rmtree(studies / "study-2")
    write_tiny_study(studies / "study-9", 9)
    again = batch(studies, resume=True)
    assert again.n_computed == 2
    assert again.tables == batch(studies, "fresh").tables
    with read_ledger(again.output) as ledger:
        attempts = sorted(entry.attempt for entry in ledger.results().values())
    assert attempts == [1, 1, 1, 1, 2]


def test_another_configuration_computes_everything_again(batch, studies):
    batch(studies)
    other = batch(studies, resume=True, settings=Settings(labels=("lung*",)))
    assert other.n_computed == 5
    assert len(features_of(other.output)) == 5
    back = batch(studies, resume=True)
    assert back.n_computed == 5


def test_features_of_two_configurations_never_meet_in_a_table(batch, studies):
    batch(studies)
    other = batch(studies, resume=True, limit=2, settings=Settings(profile="paper"))
    features = features_of(other.output)
    assert set(features["profile"]) == {"paper"}
    assert len(features) == 6
    assert other.result.exit_code == 2
    assert batch_status(other.output).n_finished == 2
    merge_batches([other.output], other.output.parent / "merged")
    assert set(features_of(other.output.parent / "merged")["profile"]) == {"paper"}


def test_failures_are_tried_again_when_asked(batch, tmp_path):
    write_volume(tmp_path / "a.nii.gz")
    path = write_manifest(
        tmp_path / "m.csv", "image_path,coordX,coordY,coordZ", "a.nii.gz,0,0,0", "b.nii.gz,0,0,0"
    )
    first = batch(path)
    assert [row["state"] for row in first.rows("case")] == ["done", "failed"]
    assert batch(path, resume=True).n_computed == 0
    assert batch(path, resume=True, retry_failed=True).n_computed == 1
    write_volume(tmp_path / "b.nii.gz")
    mended = batch(path, resume=True)
    assert (mended.n_computed, mended.result.exit_code) == (1, 0)


def test_files_that_disappear_are_not_taken_for_bad_ones(batch, studies, tmp_path):
    whole = batch(studies, "whole")
    away = tmp_path / "away"

    def unplug(event):
        if event["event"] == "start":
            studies.rename(away)

    cut = batch(studies, report=unplug)
    assert {event["reason"] for event in cut.events[1:-1]} == {"input_not_found"}
    assert cut.result.exit_code == 3
    assert "15 of 15 files of item" in cut.rows("case")[0]["message"]
    assert "--resume --retry-failed" in cut.rows("case")[0]["message"]
    away.rename(studies)
    assert batch(studies, resume=True, retry_failed=True).tables == whole.tables


def test_one_file_that_disappears(batch, studies):
    def remove(event):
        if event["event"] == "start":
            (studies / "study-1" / "lesions.dcm").unlink()

    run = batch(studies, report=remove)
    states = [event["state"] for event in run.events[1:-1]]
    assert sorted(states) == ["done"] * 4 + ["failed"]
    assert run.result.exit_code == 2


def test_a_crash_between_part_and_ledger(batch, studies, monkeypatch):
    """The rows are on disk and the ledger does not know: they never were."""
    whole = batch(studies, "whole")
    monkeypatch.setattr(writer, "_LESIONS_PER_PART", 1)
    real, calls = writer.write_part, []

    def dies_after_the_third(*arguments):
        files = real(*arguments)
        calls.append(files)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return files

    monkeypatch.setattr(writer, "write_part", dies_after_the_third)
    with pytest.raises(KeyboardInterrupt):
        batch(studies)
    output = whole.output.parent / "out"
    assert len(list((output / "parts").iterdir())) == 6
    monkeypatch.setattr(writer, "write_part", real)
    rest = batch(studies, resume=True)
    assert rest.n_computed == 3
    assert rest.tables == whole.tables
    assert leftovers(output) == []


def test_an_item_whose_reader_crashed_half_way(batch, studies, monkeypatch):
    from oncofm.workflow.batch.reader import ItemFailed
    from oncofm.workflow.run import SampledChunk

    class Crashing(ReadersHere):
        def messages(self):
            broken = set()
            for message in super().messages():
                if isinstance(message, SampledChunk) and message.key[0] in (1, 3):
                    broken.add(message.key[0])
                    yield SampledChunk(message.key, message.case, 0, message.lesions[:1])
                elif getattr(message, "position", None) in broken:
                    yield ItemFailed(message.position, "reader_crashed", "It crashed.")
                else:
                    yield message

    monkeypatch.setattr(computers, "Readers", Crashing)
    run = batch(studies)
    assert [row["state"] for row in run.rows("case")] == [
        "done", "failed", "done", "failed", "done",
    ]  # fmt: skip
    assert len(features_of(run.output)) == 9
    assert run.result.exit_code == 2


def test_rows_know_their_item(batch, studies, tmp_path):
    """A DICOM case is called by its series; what the manifest calls it is in the last column."""
    rows = [f"patient-{n},{studies / f'study-{n}'}" for n in (2, 0)]
    run = batch(write_manifest(tmp_path / "m.csv", "case_id,image_path", *rows))
    features = features_of(run.output)
    columns = list(features)
    assert columns[columns.index("pred_0") - 1] == "item_id"
    assert features["item_id"].tolist() == ["patient-2"] * 3 + ["patient-0"] * 3
    assert [row["item_id"] for row in run.rows("case")] == ["patient-2", "patient-0"]
    assert list(run.cases[0])[-1] == "item_id"
    assert not set(features["case_id"]) & set(features["item_id"])


def test_skipped_files_are_listed_and_survive(batch, studies, tmp_path, monkeypatch):
    (studies / "study-1" / "notes.txt").write_text("hello")
    (studies / "study-3" / "empty.dcm").touch()
    whole = batch(studies, "whole")
    rows = read_rows(whole.output / "skipped.csv")
    assert sorted((row["file"].rsplit("/", 1)[1], row["reason"]) for row in rows) == [
        ("empty.dcm", "empty_file"),
        ("notes.txt", "not_dicom"),
    ]
    assert json.loads((whole.output / "run.json").read_text())["inputs"]["n_files_skipped"] == 2
    assert all(row["file"].startswith(row["item_id"]) for row in rows)
    monkeypatch.setattr(writer, "_LESIONS_PER_PART", 1)
    batch(studies, limit=2)
    assert batch(studies, resume=True).tables == whole.tables
    shards = [batch(studies, f"shard-{n}", shard=(n, 3)) for n in range(3)]
    merge_batches([shard.output for shard in shards], tmp_path / "merged")
    assert tables_of(tmp_path / "merged") == whole.tables
    for name in ("study-1/notes.txt", "study-3/empty.dcm"):
        (studies / name).unlink()
    assert "skipped.csv" not in batch(studies, "whole", resume=True).tables


def test_throughput_adds_up_over_attempts(batch, studies, monkeypatch):
    monkeypatch.setattr(writer, "_LESIONS_PER_PART", 3)
    batch(studies, limit=2)
    status = batch_status(batch(studies, resume=True, limit=2).output)
    batch(studies, resume=True)
    run = batch(studies, resume=True)  # has nothing to do, so it is no attempt
    throughput = run.result.manifest.throughput
    assert json.loads((run.output / "run.json").read_text())["throughput"] == (
        throughput.model_dump(mode="json")
    )
    assert [(each.n_cases, each.n_lesions) for each in throughput.attempts] == [
        (2, 6), (2, 6), (1, 3),
    ]  # fmt: skip
    assert (throughput.n_cases, throughput.n_lesions, throughput.n_workers) == (5, 15, 1)
    parts = (throughput.waiting_s, throughput.encoding_s, throughput.writing_s)
    assert sum(parts) == pytest.approx(throughput.seconds, abs=0.01)
    assert throughput.cases_per_s == pytest.approx(5 / throughput.seconds, rel=0.01)
    assert throughput.limited_by in ("readers", "encoder", "writing")
    assert throughput.peak_memory_mib["main"] > 10
    assert throughput.started_at <= throughput.ended_at <= run.result.manifest.finished_at
    assert status.throughput.n_cases == 4
    assert len(status.throughput.attempts) == 2


def test_attempts_that_make_no_sense(batch, studies):
    output = batch(studies, limit=1).output
    with open_ledger(output) as ledger:
        ledger.note(attempts='[{"n_cases": "many"}]')
    with pytest.raises(BatchError, match="says nothing sensible about earlier attempts"):
        batch_status(output)


def test_a_report_of_all_that_was_done(batch, studies, tmp_path, monkeypatch):
    from heads import write_head

    write_head(tmp_path / "head", n_features=64, weights_sha256="0" * 64)
    (studies / "study-0" / "lesions.dcm").unlink()
    settings = Settings(heads=(str(tmp_path / "head"),), report=True)
    batch(studies, settings=settings, limit=2)
    page = parse((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "3 items are not computed yet" in page.only(id="reasons").text
    run = batch(studies, settings=settings, resume=True)
    page = parse((run.output / "report.html").read_text(encoding="utf-8"))
    reasons = page.only(id="reasons")
    (group,) = reasons.every("details")
    assert "no_seeds" in group.text.replace("\u200b", "")
    assert "1 case" in group.text
    rejected = next(row for row in run.rows("case") if row["state"] == "rejected")
    assert rejected["message"] in group.text
    head = next(page.only(id="predictions").every("article"))
    rows = read_rows(run.output / "predictions.csv")
    values = [float(row["probability"]) for row in rows if row["class"] == rows[-1]["class"]]
    last = list(head.every("tr"))[-1]
    expected = np.percentile(np.float32(values), (5, 25, 50, 75, 95))
    assert last.numbers[2:] == pytest.approx(expected)
    assert "12 lesions" in head.text
    assert page.only(id="throughput").facts["Workers"].text == "2"
    links = {node["href"] for node in page.only(id="files").every("a")}
    assert links == {"./features.parquet", "./predictions.csv", "./cases.csv", "./run.json"}
    plain = batch(studies, settings=replace(settings, report=False), resume=True)
    assert plain.n_computed == 0
    assert not (run.output / "report.html").exists()


def test_outputs_that_are_missing_are_in_the_report(batch, studies, monkeypatch):
    from oncofm.results.manifest import Reports

    broken = Reports(sop_instance_uids=[], failures=["Lesion x has no key image."])
    monkeypatch.setattr(writer, "write_dicom", lambda *_: broken)
    run = batch(studies, settings=Settings(key_images=True, report=True))
    page = parse((run.output / "report.html").read_text(encoding="utf-8"))
    (group,) = page.only(id="reasons").every("details")
    assert "5 outputs" in group.text
    assert "Lesion x has no key image." in group.text


# --- what is refused ----------------------------------------------------------------------


def test_a_second_process_is_refused(batch, studies, tmp_path):
    (tmp_path / "out").mkdir()
    with (
        open_ledger(tmp_path / "out"),
        pytest.raises(BatchError, match="Another process writes"),
    ):
        batch(studies)


def test_sources_that_are_none(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    for source, error, sentence in (
        ("nowhere", InputNotFoundError, "nowhere does not exist; name a manifest or a folder"),
        ("empty", BatchError, "empty is empty; name a manifest with rows, or a folder with files"),
        ("notes.txt", BatchError, r"neither a folder nor one of \.csv, .*; name one of those"),
        ("out", BatchError, "out is input and output at once; choose another output folder"),
    ):
        with pytest.raises(error, match=sentence):
            plan_items(tmp_path / source, output)


def test_a_damaged_part_is_found_at_the_end(batch, studies):
    run = batch(studies)
    (path,) = (run.output / "parts").glob("features-*")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BatchError, match="is not what was written"):
        batch(studies, resume=True)


# --- shards -------------------------------------------------------------------------------


def test_shards_merged_are_the_whole(batch, studies, tmp_path):
    whole = batch(studies, "whole")
    shards = [batch(studies, f"shard-{n}", shard=(n, 3)) for n in range(3)]
    assert [shard.n_computed for shard in shards] == [2, 2, 1]
    merged = merge_batches([shard.output for shard in shards], tmp_path / "merged")
    assert tables_of(tmp_path / "merged") == whole.tables
    assert (merged.n_items, merged.n_duplicates, merged.differences) == (5, 0, ())
    assert merged.counts.lesions["done"] == 15
    assert merged.counts.exit_code(0) == 0


def test_a_shard_without_items(batch, studies, tmp_path):
    whole = batch(studies, "whole")
    empty = batch(studies, "empty", shard=(7, 8))
    assert (empty.n_computed, empty.result.exit_code) == (0, 3)
    assert len(features_of(empty.output)) == 0
    assert list(features_of(empty.output)) == list(features_of(whole.output))
    with pytest.raises(BatchError, match="No batch of 1 has finished an item; run them first"):
        merge_batches([empty.output], tmp_path / "none")
    merge_batches([empty.output, whole.output], tmp_path / "merged")
    assert tables_of(tmp_path / "merged") == whole.tables


def test_what_is_in_two_batches_is_taken_once(batch, studies, tmp_path):
    whole = batch(studies, "whole")
    part = batch(studies, "part", limit=3)
    merged = merge_batches([part.output, whole.output], tmp_path / "merged")
    assert (merged.n_items, merged.n_duplicates) == (5, 3)
    assert tables_of(tmp_path / "merged") == whole.tables


def test_batches_that_do_not_go_together(batch, studies, tmp_path, monkeypatch):
    whole = batch(studies, "whole")
    out = tmp_path / "merged"
    paper = batch(studies, "paper", settings=Settings(profile="paper"))
    with pytest.raises(BatchError, match=r"another profile than .* \(paper, not mhub\)"):
        merge_batches([whole.output, paper.output], out)
    monkeypatch.setattr(whole.encoder, "weights", replace(whole.encoder.weights, sha256="1" * 64))
    weights = batch(studies, "weights")
    with pytest.raises(BatchError, match=r"another weights_sha256 than"):
        merge_batches([whole.output, weights.output], out)
    monkeypatch.undo()
    with pytest.raises(BatchError, match="is one of the batches to merge"):
        merge_batches([whole.output], whole.output)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BatchError, match="holds no batch"):
        merge_batches([tmp_path / "empty"], out)
    with open_ledger(tmp_path / "empty"):
        pass
    with pytest.raises(BatchError, match="has not computed anything; run it first"):
        merge_batches([tmp_path / "empty"], out)
    assert not out.exists()


def test_other_settings_are_named_and_other_inputs_refused(batch, studies, tmp_path):
    whole = batch(studies, "whole")
    labels = batch(studies, "labels", settings=Settings(labels=("lung*",)))
    merged = merge_batches([whole.output, labels.output], tmp_path / "merged")
    assert merged.differences == ("labels",)
    (studies / "study-0" / "ct" / "slice-0000.dcm").unlink()
    changed = batch(studies, "changed")
    with pytest.raises(BatchError, match="have different inputs of one name"):
        merge_batches([whole.output, changed.output], tmp_path / "merged")


def test_a_merge_into_one_file(batch, studies, tmp_path):
    (studies / "study-1" / "notes.txt").write_text("hello")
    whole = batch(studies, "whole")
    shards = [batch(studies, f"shard-{n}", shard=(n, 2)).output for n in range(2)]
    target = tmp_path / "new" / "all.parquet"
    merge_batches(shards, target)
    beside = {"all.parquet", "all-cases.csv", "all-skipped.csv"}
    assert {path.name for path in target.parent.iterdir()} == beside
    assert target.read_bytes() == whole.tables["features.parquet"]
    assert (target.parent / "all-cases.csv").read_bytes() == whole.tables["cases.csv"]
    assert (target.parent / "all-skipped.csv").read_bytes() == whole.tables["skipped.csv"]
    before = tables_of(shards[0])
    with pytest.raises(BatchError, match="is one of the batches to merge"):
        merge_batches(shards, shards[0] / "features.parquet")
    assert tables_of(shards[0]) == before


def test_a_table_that_is_too_long_is_a_folder_of_files(batch, studies, tmp_path, monkeypatch):
    from oncofm.results import table_files
    from oncofm.workflow.batch import parts

    whole = batch(studies, "whole")
    monkeypatch.setattr(parts, "_ROWS_AT_A_TIME", 3)
    monkeypatch.setattr(table_files, "MOST_ROWS_PER_FILE", 6)
    run = batch(studies)
    target = run.output / "features.parquet"
    files = {path.name: len(pd.read_parquet(path)) for path in target.iterdir()}
    assert files == {f"features-0000{n}.parquet": rows for n, rows in ((1, 6), (2, 6), (3, 3))}
    pd.testing.assert_frame_equal(pd.read_parquet(target), features_of(whole.output))
    batch(studies, resume=True)
    assert {path.name for path in target.iterdir()} == files.keys()
    (target / "mine.txt").touch()
    with pytest.raises(OutputNotWritableError, match=r"features.parquet cannot be written \("):
        batch(studies, resume=True)
    assert [path.name for path in target.iterdir()] == ["mine.txt"]
    (target / "mine.txt").unlink()
    monkeypatch.setattr(parts, "_ROWS_AT_A_TIME", 4096)
    assert batch(studies, resume=True).tables == whole.tables
    assert leftovers(run.output) == []


# --- disks --------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A tmpfs of 4 MB; root only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_a_disk_that_is_full_and_then_is_not(batch, studies, small_disk, monkeypatch, after):
    whole = batch(studies, "whole")
    monkeypatch.setattr(writer, "_LESIONS_PER_PART", 1)
    filler = small_disk / "filler"

    def fill(event):
        if event["event"] == "case":
            fill.count += 1
        if fill.count == after and not filler.exists():
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))

    fill.count = 0
    with pytest.raises(SetupError, match=r"No space left|full|cannot be written"):
        batch(studies, "disk/out", report=fill)
    assert not list((small_disk / "out").rglob("*.tmp"))
    filler.unlink()
    assert batch(studies, "disk/out", resume=True).tables == whole.tables


# --- status -------------------------------------------------------------------------------


def test_the_status_of_a_batch(batch, studies, tmp_path):
    (studies / "study-0" / "lesions.dcm").unlink()
    first = batch(studies, limit=4)
    status = batch_status(first.output)
    assert (status.n_items, status.n_finished, status.n_left) == (5, 4, 1)
    batch(studies, resume=True)
    status = batch_status(first.output)
    assert (status.n_items, status.n_finished, status.n_left) == (5, 5, 0)
    assert status.states == {"done": 4, "rejected": 1}
    assert status.reasons == {"no_seeds": 1}
    assert (status.n_lesions, status.n_lesions_done) == (12, 12)
    assert status.failures == ()
    assert status.last_finished_at
    with pytest.raises(BatchError, match="holds no batch"):
        batch_status(tmp_path)


def test_failures_are_named(batch, tmp_path):
    rows = [f"gone-{number}.nii,0,0,0" for number in range(12)]
    path = write_manifest(tmp_path / "m.csv", "image_path,coordX,coordY,coordZ", *rows)
    status = batch_status(batch(path).output)
    assert status.states == {"failed": 12}
    assert len(status.failures) == 10
    assert status.failures[0][0] == "gone-0.nii"
    assert "does not exist" in status.failures[0][1]


# --- reports and heads --------------------------------------------------------------------


def test_pictures_of_dicom_and_not_of_other_volumes(batch, studies, tmp_path):
    write_volume(tmp_path / "v.nii.gz")
    path = write_manifest(
        tmp_path / "m.csv",
        "image_path,coordX,coordY,coordZ",
        "v.nii.gz,0,0,0",
        f"{studies / 'study-0'},,,",
    )
    run = batch(path, settings=Settings(key_images=True, sr="point"))
    assert run.result.exit_code == 0
    assert len(list((run.output / "key_images").iterdir())) == 3
    assert len(list((run.output / "sr").iterdir())) == 1
    assert leftovers(run.output) == []


def test_a_report_that_cannot_be_written_is_seen(batch, studies, monkeypatch):
    from oncofm.results.manifest import Reports

    broken = Reports(sop_instance_uids=[], failures=["Lesion x has no key image."])
    monkeypatch.setattr(writer, "write_dicom", lambda *_: broken)
    run = batch(studies, settings=Settings(key_images=True), limit=1)
    assert run.result.exit_code == 2
    with read_ledger(run.output) as ledger:
        (entry,) = ledger.entries().values()
    assert (entry.state, entry.reason) == ("partial", "report_failed")
    assert entry.message == "Lesion x has no key image."
    monkeypatch.setattr(writer, "write_dicom", lambda *_: None)
    settings = Settings(key_images=True)
    assert batch(studies, resume=True, settings=settings).n_computed == 4
    mended = batch(studies, resume=True, retry_failed=True, settings=settings)
    assert (mended.n_computed, mended.result.exit_code) == (1, 0)


@pytest.mark.parametrize("settings", [Settings(sr="point"), Settings(key_images=True)])
def test_images_that_are_gone_before_the_report(batch, studies, settings):
    def take_away(event):
        if event["event"] == "case":
            shutil.rmtree(studies)

    run = batch(studies, settings=settings, report=take_away, limit=1)
    assert run.result.exit_code == 2
    with read_ledger(run.output) as ledger:
        (entry,) = ledger.entries().values()
    assert (entry.state, entry.reason) == ("partial", "report_failed")
    assert "cannot be read again (FileNotFoundError); put it back" in entry.message


def test_heads_say_the_same_in_a_batch(batch, studies, tmp_path, monkeypatch):
    from heads import write_head

    write_head(tmp_path / "head", n_features=64, weights_sha256="0" * 64)
    settings = Settings(heads=(str(tmp_path / "head"),), jitter=2)
    run = batch(studies, settings=settings)
    rows = read_rows(run.output / "predictions.csv")
    assert len(rows) >= 15
    assert {row.pop("item_id") for row in rows} == {row["item_id"] for row in run.cases}
    monkeypatch.setattr(job, "start_loading", lambda *_: lambda: run.encoder)
    job.run_job([studies], tmp_path / "alone", settings)
    alone = read_rows(tmp_path / "alone" / "predictions.csv")
    assert sorted(map(str, rows)) == sorted(map(str, alone))
    plain = batch(studies, resume=True)
    assert plain.n_computed == 5
    assert not (run.output / "predictions.csv").exists()


def test_points_beside_the_images(batch, studies):
    from oncofm.demo.markups import write_centroids
    from oncofm.demo.phantom import chest_scene

    uids = [row["case_id"] for row in batch(studies, "segments").rows("case")]
    lesions = chest_scene(0).lesions[:2]
    for uid in uids:
        points = [lesion.centre_mm for lesion in lesions]
        write_centroids(studies / f"{uid}.json", points, [lesion.label for lesion in lesions])
    run = batch(studies, settings=Settings(seed_kinds=("points",)))
    assert run.result.exit_code == 0
    assert [row["n_done"] for row in run.rows("case")] == ["2"] * 5


# --- what a header or a name may hold -----------------------------------------------------


def test_names_that_are_no_text_reach_the_tables(batch, studies, capsys):
    import os

    folder = os.fsencode(studies) + b"/k\xf6ln"
    os.mkdir(folder)  # noqa: PTH102
    with open(folder + b"/\xff.dcm", "wb") as file:  # noqa: PTH123
        file.write(bytes(128) + b"DICM")
    run = batch(studies)
    (row,) = run.rows("file")
    assert row["reason"] == "unreadable_file"
    assert row["case_id"].endswith(r"/k\udcf6ln/\udcff.dcm")
    assert batch(studies, resume=True).n_computed == 0


def test_files_that_belong_to_nothing_make_no_case(batch, studies):
    (studies / "notes").mkdir()
    (studies / "notes" / "a.txt").write_text("hello")
    run = batch(studies)
    assert run.result.exit_code == 0
    assert len(run.rows("case")) == 5
    assert batch_status(run.output).states == {"done": 5, "no_case": 1}


def test_every_error_of_a_batch_is_one_of_ours(batch, studies, monkeypatch, tmp_path):
    """A defect of the program in one item ends as this item's state."""
    monkeypatch.setattr("oncofm.workflow.batch.reader.gather", lambda *_: 1 / 0)
    run = batch(studies)
    assert {row["reason"] for row in run.rows("case")} == {"reading_failed"}
    assert run.result.exit_code == 3


def test_patients_are_not_named(batch, studies, monkeypatch):
    def fails(*_):
        raise ValueError("CANARY^BIRD")

    monkeypatch.setattr("oncofm.workflow.batch.reader.gather", fails)
    run = batch(studies)
    for path in run.output.rglob("*"):
        assert path.is_dir() or b"CANARY" not in path.read_bytes()


def test_sigterm_outside_the_main_thread_is_nobody_s(batch, studies, tmp_path, monkeypatch):
    import threading

    found = []
    thread = threading.Thread(target=lambda: found.append(batch(studies)))
    thread.start()
    thread.join()
    assert found[0].result.exit_code == 0


def test_an_output_folder_that_is_removed_in_mid_run(batch, studies, tmp_path):
    def remove(event):
        if event["event"] == "case":
            shutil.rmtree(tmp_path / "out", ignore_errors=True)

    with pytest.raises(OutputNotWritableError, match=r"parts cannot be written .* put back the ou"):
        batch(studies, report=remove)
    assert not (tmp_path / "out").exists()


def test_two_items_of_one_series_do_not_overwrite_each_other_s_reports(batch, studies, tmp_path):
    study = studies / "study-0"
    rows = [f"reader-{n},{study / 'ct'},{study / 'lesions.dcm'}" for n in (1, 2)]
    header = "case_id,image_path,seeds_path"
    path = write_manifest(tmp_path / "m.csv", header, *rows)
    settings = Settings(sr="auto", key_images=True)
    batch(write_manifest(tmp_path / "first.csv", header, rows[1]), settings=settings)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*/*.dcm")}
    run = batch(path, settings=settings, resume=True)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*/*.dcm")} == before
    assert run.result.exit_code == 2
    assert len(features_of(run.output)) == 6
    with read_ledger(run.output) as ledger:
        entries = ledger.entries()
    assert entries["reader-2"].state == "done"
    assert (entries["reader-1"].state, entries["reader-1"].reason) == ("partial", "report_failed")
    assert entries["reader-1"].message.endswith(
        "has no report: item reader-2 has one of that name; compute item reader-1 into a folder of "
        "its own."
    )
    assert batch(path, "without").result.exit_code == 0
    both = batch(path, "both", settings=settings)
    with read_ledger(both.output) as ledger:
        assert sorted(entry.state for entry in ledger.entries().values()) == ["done", "partial"]


def test_features_are_the_same_in_any_order(batch, studies, monkeypatch):
    whole = batch(studies, "whole")

    class Backwards(ReadersHere):
        def messages(self):
            self._items = list(self._items)[::-1]
            return super().messages()

    monkeypatch.setattr(computers, "Readers", Backwards)
    monkeypatch.setattr(writer, "_LESIONS_PER_PART", 4)
    other = batch(studies)
    assert len(list((other.output / "parts").glob("features-*"))) > 1
    assert other.tables == whole.tables
    first = features_of(other.output)
    assert np.isfinite(first.filter(like="pred_").to_numpy()).all()


def test_options_have_defaults_that_change_nothing(studies):
    assert BatchOptions() == BatchOptions(2, 600.0, False, False, None, (0, 1))
    assert issubclass(BatchError, OncofmError)
