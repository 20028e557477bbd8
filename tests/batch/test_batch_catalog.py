"""What lies in a folder: found once, remembered, and never mixed up."""

import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import zipfile
import zlib
from contextlib import closing

import pytest
from batches import write_tiny_study

from oncofm.errors import BatchError
from oncofm.imaging.sources import FileSource
from oncofm.workflow.batch import catalog as catalog_module
from oncofm.workflow.batch.catalog import catalog_items, read_scan


@pytest.fixture
def catalog(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir(exist_ok=True)
    return folder / "catalog.sqlite"


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that are opened as images."""
    names = []
    real = FileSource.open

    def spy(self):
        names.append(self.name)
        return real(self)

    monkeypatch.setattr(FileSource, "open", spy)
    return names


def files_of(item):
    scan = read_scan(item.catalog, item.places)
    found = [instance.source.name for series in scan.series for instance in series.instances]
    return found + [file.name for file in scan.skipped]


def by_id(items):
    return {item.item_id: item for item in items}


def test_every_study_is_an_item_and_its_headers_are_kept(studies, catalog):
    items = catalog_items(studies, catalog)
    assert [item.position for item in items] == list(range(5))
    assert [item.item_id for item in items] == sorted(item.item_id for item in items)
    for item in items:
        assert len({name.rsplit("/study-", 1)[1][0] for name in files_of(item)}) == 1
        series = read_scan(item.catalog, item.places).series
        assert [len(each.instances) for each in series] == [1, 14]
        assert {each.study_uid for each in series} == {item.item_id}


def test_what_has_not_changed_is_not_opened_again(studies, catalog, opened):
    first = catalog_items(studies, catalog)
    assert len(set(opened)) == 5 * 15
    opened.clear()
    assert catalog_items(studies, catalog) == first
    assert opened == []


def test_only_the_folder_that_changed_is_opened(studies, catalog, opened):
    before = by_id(catalog_items(studies, catalog))
    opened.clear()
    changed = studies / "study-2" / "lesions.dcm"
    changed.write_bytes(changed.read_bytes() + b"\0\0")
    after = by_id(catalog_items(studies, catalog))
    assert set(opened) == {str(changed)}
    moved = [uid for uid in before if before[uid].identity != after[uid].identity]
    assert len(moved) == 1
    assert str(changed) in files_of(after[moved[0]])


def test_a_new_time_is_a_new_identity(studies, catalog):
    before = by_id(catalog_items(studies, catalog))
    os.utime(studies / "study-0" / "ct" / "slice-0003.dcm", ns=(1, 1))
    after = by_id(catalog_items(studies, catalog))
    assert sum(before[uid].identity != after[uid].identity for uid in before) == 1


def test_added_and_removed_studies(studies, catalog):
    before = by_id(catalog_items(studies, catalog))
    shutil.rmtree(studies / "study-1")
    write_tiny_study(studies / "new", 17)
    after = by_id(catalog_items(studies, catalog))
    assert len(after) == 5
    assert len(before.keys() & after.keys()) == 4
    assert all(before[uid].identity == after[uid].identity for uid in before.keys() & after.keys())


def test_another_file_beside_them_does_not_change_a_study(studies, catalog):
    before = by_id(catalog_items(studies, catalog))
    (studies / "study-0" / "ct" / "notes.txt").write_text("nothing")
    after = by_id(catalog_items(studies, catalog))
    added = after.keys() - before.keys()
    assert added == {str(studies / "study-0" / "ct")}
    assert all(before[uid].identity == after[uid].identity for uid in before)


def test_a_study_over_several_folders_is_one_item(studies, catalog):
    elsewhere = studies / "annotations" / "deep"
    elsewhere.mkdir(parents=True)
    (studies / "study-3" / "lesions.dcm").rename(elsewhere / "x.dcm")
    shutil.move(studies / "study-3" / "ct" / "slice-0001.dcm", studies / "lost.dcm")
    items = catalog_items(studies, catalog)
    assert len(items) == 5
    (item,) = [item for item in items if len(item.places) == 3]
    assert len(files_of(item)) == 15


def test_an_annotation_in_another_study_joins_its_images(studies, catalog):
    import pydicom

    path = studies / "study-4" / "lesions.dcm"
    dataset = pydicom.dcmread(path)
    dataset.StudyInstanceUID = "2.25.1"
    dataset.save_as(studies / "foreign.dcm")
    path.unlink()
    items = catalog_items(studies, catalog)
    assert len(items) == 5
    (item,) = [item for item in items if str(studies / "foreign.dcm") in files_of(item)]
    assert len(files_of(item)) == 15
    assert item.item_id == "2.25.1"


def test_files_named_after_a_series_join_it(studies, catalog):
    items = catalog_items(studies, catalog)
    (series_uid,) = [
        series.series_uid
        for series in read_scan(items[0].catalog, items[0].places).series
        if series.modality == "CT"
    ]
    (studies / "points").mkdir()
    for name in (f"{series_uid}.json", f"{series_uid}.mrk.json", "any.json", "notes.txt"):
        (studies / "points" / name).write_text("{}")
    found = by_id(catalog_items(studies, catalog))
    assert len(found) == 6
    assert sum(name.endswith(".json") for name in files_of(found[items[0].item_id])) == 2
    assert sorted(files_of(found[str(studies / "points")])) == [
        str(studies / "points" / "any.json"), str(studies / "points" / "notes.txt"),
    ]  # fmt: skip


def test_archives_in_folders_are_looked_into(studies, catalog):
    study = studies / "study-0"
    archive = studies / "study-0.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(study.rglob("*.dcm")):
            file.write(path, path.relative_to(study))
    plain = by_id(catalog_items(studies, catalog))
    shutil.rmtree(study)
    zipped = by_id(catalog_items(studies, catalog))
    assert zipped.keys() == plain.keys()
    (uid,) = [uid for uid in zipped if f"{archive}/lesions.dcm" in files_of(zipped[uid])]
    os.utime(archive, ns=(1, 1))  # its members keep their names
    again = by_id(catalog_items(studies, catalog))
    assert again[uid].identity != zipped[uid].identity


def test_links_are_followed_once(studies, catalog):
    (studies / "again").symlink_to(studies / "study-0")
    (studies / "round").symlink_to(studies)
    (studies / "itself").symlink_to("itself")
    (studies / "nowhere").symlink_to("/does/not/exist")
    items = by_id(catalog_items(studies, catalog))
    broken = items.pop(str(studies))
    assert len(items) == 5
    assert sum(len(files_of(item)) for item in items.values()) == 5 * 15
    scan = read_scan(broken.catalog, broken.places)
    assert sorted(file.name for file in scan.skipped) == [
        str(studies / "itself"), str(studies / "nowhere"),
    ]  # fmt: skip
    assert all("cannot be read" in str(file.error) for file in scan.skipped)


def test_a_folder_that_cannot_be_listed_is_an_item_that_says_so(studies, catalog):
    closed = studies / "study-1" / "ct"
    closed.chmod(0)
    studies.chmod(0o755)  # a copy of a folder that is private
    catalog.parent.chmod(0o777)
    for folder in catalog.parents:
        if folder.name.startswith(("pytest", "popen", "test_")):
            folder.chmod(0o755)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        items = by_id(catalog_items(studies, catalog))
    finally:
        os.seteuid(user)
        closed.chmod(0o755)
    (skipped,) = read_scan(catalog, items[str(closed)].places).skipped
    assert skipped.reason == "unreadable_file"
    assert "cannot be listed" in str(skipped.error)


def test_a_file_that_is_gone_before_it_is_opened(studies, catalog, monkeypatch):
    real = catalog_module._walk
    victim = studies / "study-0" / "ct" / "slice-0005.dcm"

    def walk(root, left_out):
        for folder, files in real(root, left_out):
            if folder == str(victim.parent):
                victim.unlink()
            yield folder, files

    monkeypatch.setattr(catalog_module, "_walk", walk)
    items = by_id(catalog_items(studies, catalog))
    (skipped,) = read_scan(catalog, items[str(victim.parent)].places).skipped
    assert skipped.name == str(victim)


def test_a_folder_that_is_gone_before_it_is_entered(studies, catalog, monkeypatch):
    real = os.scandir
    gone = studies / "study-0" / "ct"

    def scandir(folder):
        if folder == str(gone):
            shutil.rmtree(gone)
        return real(folder)

    monkeypatch.setattr(catalog_module.os, "scandir", scandir)
    items = by_id(catalog_items(studies, catalog))
    assert str(gone) in items


def test_names_that_are_no_text(studies, catalog):
    folder = os.fsencode(studies) + b"/\xff\xfe \n'; DROP TABLE studies; --"
    os.rename(os.fsencode(studies / "study-0"), folder)  # noqa: PTH104
    with open(folder + b"/\xe9.txt", "wb") as file:  # noqa: PTH123
        file.write(b"nothing")
    items = catalog_items(studies, catalog)
    assert catalog_items(studies, catalog) == items
    assert len(items) == 6
    for item in items:
        item.item_id.encode()
        assert len(files_of(item)) in (1, 15)


def test_what_a_batch_writes_is_no_input(studies):
    out = studies / "out"
    out.mkdir()
    shutil.copy(studies / "study-0" / "lesions.dcm", out / "report.dcm")
    items = catalog_items(studies, out / "catalog.sqlite")
    assert len(items) == 5
    assert not [name for item in items for name in files_of(item) if "/out/" in name]


def test_an_annotation_that_cannot_be_read_is_kept(studies, catalog):
    path = studies / "study-0" / "lesions.dcm"
    path.write_bytes(path.read_bytes()[:700])
    items = catalog_items(studies, catalog)
    assert [name for item in items for name in files_of(item)].count(str(path)) == 1


def test_a_broken_catalog(studies, catalog):
    catalog.write_bytes(b"this is no database " * 100)
    with pytest.raises(BatchError, match=r"catalog .* cannot be used .* delete it"):
        catalog_items(studies, catalog)
    catalog.unlink()
    assert len(catalog_items(studies, catalog)) == 5


@pytest.mark.parametrize(
    "content",
    [b"cut", zlib.compress(pickle.dumps(os.getcwd)), zlib.compress(pickle.dumps([]))[:-3]],
    ids=["not compressed", "names a function", "cut short"],
)
def test_a_catalog_that_holds_something_else(studies, catalog, content):
    item = catalog_items(studies, catalog)[0]
    with closing(sqlite3.connect(catalog)) as database, database:
        database.execute("UPDATE studies SET scan = ?", (content,))
    with pytest.raises(BatchError, match=r"catalog of this batch is damaged .* delete"):
        read_scan(catalog, item.places)


def test_a_catalog_of_another_version_is_made_anew(studies, catalog, opened):
    before = catalog_items(studies, catalog)
    with closing(sqlite3.connect(catalog)) as database, database:
        database.execute("UPDATE studies SET scan = x'00'")
        database.execute("PRAGMA user_version = 1")
    opened.clear()
    assert catalog_items(studies, catalog) == before
    assert len(set(opened)) == 5 * 15
    assert len(files_of(before[0])) == 15


def test_two_processes_on_one_catalog(studies, catalog):
    program = (
        "import sys; from pathlib import Path\n"
        "from oncofm.workflow.batch.catalog import catalog_items\n"
        "print(len(catalog_items(Path(sys.argv[1]), Path(sys.argv[2]))))"
    )
    command = [sys.executable, "-c", program, str(studies), str(catalog)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0].strip() for process in processes] == ["5", "5"]
    assert len(catalog_items(studies, catalog)) == 5


def test_progress_counts_files(studies, catalog):
    counts = []
    catalog_items(studies, catalog, counts.append)
    assert counts[-1] == 5 * 15
    assert counts == sorted(counts)
