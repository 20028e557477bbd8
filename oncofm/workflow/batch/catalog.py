"""What lies in a large folder: every header read once, and remembered.

The catalog knows each folder by the names, sizes and times of its files. A folder that has not
changed is not opened again, so that a second look at a million files takes as long as listing them.
Only this program writes it; it holds headers of the kind that `oncofm.imaging.scan` keeps, no
patient data.
"""

import hashlib
import os
import sqlite3
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

from oncofm.errors import BatchError, InputNotFoundError, UnreadableFileError
from oncofm.imaging.scan import (
    NOT_DICOM,
    DicomScan,
    InstanceRecord,
    SkippedFile,
    group_instances,
    scan_dicom,
)
from oncofm.seeds.references import referenced_series
from oncofm.workflow.batch.items import Item, as_text
from oncofm.workflow.batch.packed import pack, unpack
from oncofm.workflow.batch.places import NAMED, Place, connected, item_id_of

_SCHEMA = """
CREATE TABLE IF NOT EXISTS folders (path BLOB PRIMARY KEY, fingerprint TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS studies (
    path BLOB NOT NULL,
    study_uid TEXT NOT NULL,
    series_uids TEXT NOT NULL,
    referenced_uids TEXT NOT NULL,
    identity TEXT NOT NULL,
    scan BLOB NOT NULL,
    PRIMARY KEY (path, study_uid)
);
"""
"""Paths are bytes, as file systems have them: not every name is a text."""
_ANNOTATIONS = ("SEG", "RTSTRUCT", "SR")
_FOLDERS_AT_A_TIME = 64


def catalog_items(
    root: Path, catalog: Path, report: Callable[[int], None] = lambda n_files: None
) -> list[Item]:
    """Find the studies below a folder.

    Parameters
    ----------
    root : pathlib.Path
        Walked to the end, symbolic links to folders followed once. The folder that `catalog` is in
        is left out: what a batch writes is no input.
    catalog : pathlib.Path
        The catalog of it; made if it is absent, brought up to date if not.
    report : callable
        Takes the number of files seen so far.

    Returns
    -------
    list of Item
        In the order of the Study Instance UIDs; studies whose annotations refer to each other's
        series are one item. Files that are no DICOM, or cannot be read, are items of their own,
        one for each folder.

    Raises
    ------
    BatchError
        If the catalog cannot be used.
    """
    try:
        with closing(sqlite3.connect(catalog, timeout=30)) as database:
            _prepare(database)
            _update(database, root, catalog.parent, report)
            groups = connected(_places(database))
            return [
                _item(position, group, catalog)
                for position, group in enumerate(sorted(groups, key=item_id_of))
            ]
    except sqlite3.Error as error:
        raise BatchError(
            f"The catalog {catalog} cannot be used ({error}); free space, or delete it, and it "
            "is made anew."
        ) from error


# --- keeping it up to date ----------------------------------------------------------------


def _prepare(database: sqlite3.Connection) -> None:
    """Make the tables; those that hold records of another shape are made anew."""
    records = (DicomScan, InstanceRecord, SkippedFile)
    shape = zlib.crc32(repr([(_SCHEMA, list(each.__annotations__)) for each in records]).encode())
    version = shape & 0x7FFFFFFF
    if database.execute("PRAGMA user_version").fetchone()[0] != version:
        database.executescript("DROP TABLE IF EXISTS folders; DROP TABLE IF EXISTS studies")
        database.execute(f"PRAGMA user_version = {version}")
    database.executescript(_SCHEMA)


def _update(
    database: sqlite3.Connection, root: Path, left_out: Path, report: Callable[[int], None]
) -> None:
    rows = database.execute("SELECT path, fingerprint FROM folders")
    known = {os.fsdecode(path): fingerprint for path, fingerprint in rows}
    seen: set[str] = set()
    n_files = 0
    changed = 0
    for folder, files in _walk(root, left_out):
        seen.add(folder)
        n_files += len(files)
        report(n_files)
        fingerprint = _digest(files)
        if known.get(folder) == fingerprint:
            continue
        _scan_folder(database, folder, files, fingerprint)
        changed += 1
        if changed % _FOLDERS_AT_A_TIME == 0:
            database.commit()
    gone = [(os.fsencode(folder),) for folder in known.keys() - seen]
    database.executemany("DELETE FROM folders WHERE path = ?", gone)
    database.executemany("DELETE FROM studies WHERE path = ?", gone)
    database.commit()


def _walk(root: Path, left_out: Path) -> Iterator[tuple[str, list[tuple[str, int, int]]]]:
    """Yield each folder once, with name, size and time (ns) of its files, sorted."""
    status = left_out.stat()
    entered = {(status.st_dev, status.st_ino)}
    waiting = [str(root)]
    while waiting:
        folder = waiting.pop()
        files, below = [], []
        try:
            status = os.stat(folder)  # noqa: PTH116 - paths of a million folders are texts here
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    if _is_folder(entry):
                        below.append(entry.path)
                    else:
                        files.append(_facts(entry))
        except OSError:
            files = [("", -1, -1)]
        waiting += sorted(below, reverse=True)
        yield folder, sorted(files)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself, for example; as a file it says what is wrong with it


def _facts(entry: os.DirEntry[str]) -> tuple[str, int, int]:
    try:
        status = entry.stat()
    except OSError:
        return (entry.name, -1, -1)
    return (entry.name, status.st_size, status.st_mtime_ns)


def _scan_folder(
    database: sqlite3.Connection,
    folder: str,
    files: Sequence[tuple[str, int, int]],
    fingerprint: str,
) -> None:
    facts = {str(Path(folder) / name): (size, time) for name, size, time in files}
    scan = _scan(list(facts))
    rows = [
        (
            os.fsencode(folder),
            study_uid,
            " ".join(sorted({instance.series_uid for instance in instances})),
            study_uid.removeprefix(NAMED)
            if study_uid.startswith(NAMED)
            else " ".join(sorted(_references(instances))),
            _digest([(name, *_facts_of(name, facts)) for name in names]),
            pack(DicomScan(group_instances(instances), skipped)),
        )
        for study_uid, instances, skipped, names in _by_study(scan)
    ]
    path = os.fsencode(folder)
    database.execute("DELETE FROM studies WHERE path = ?", (path,))
    database.executemany("INSERT INTO studies VALUES (?, ?, ?, ?, ?, ?)", rows)
    database.execute("INSERT OR REPLACE INTO folders VALUES (?, ?)", (path, fingerprint))


def _scan(paths: list[str]) -> DicomScan:
    """Scan files, of which some may be gone by now; a folder among them cannot be listed."""
    lost: list[SkippedFile] = []
    while True:
        found = []
        for path in paths:
            problem = _problem(path)
            if problem:
                error = UnreadableFileError(
                    f"{path} cannot be read: {problem}; copy it again, or mend its permissions."
                )
                lost.append(SkippedFile(path, error.code, error))
            else:
                found.append(path)
        try:
            scan = scan_dicom(found)
        except InputNotFoundError:  # one more is gone since
            paths = found
            continue
        return DicomScan(scan.series, (*scan.skipped, *lost))


def _problem(path: str) -> str:
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)  # noqa: PTH116
    except OSError as error:
        return error.strerror or type(error).__name__
    return "the folder cannot be listed" if is_folder else ""


def _facts_of(name: str, facts: Mapping[str, tuple[int, int]]) -> tuple[int, ...]:
    """Size and time of a file, or of the archive that it is a member of."""
    while name not in facts and os.path.dirname(name) != name:  # noqa: PTH120
        name = os.path.dirname(name)  # noqa: PTH120
    return facts.get(name, ())


def _by_study(
    scan: DicomScan,
) -> Iterator[tuple[str, list[InstanceRecord], tuple[SkippedFile, ...], list[str]]]:
    studies: dict[str, list[InstanceRecord]] = {}
    for series in scan.series:
        for instance in (*series.instances, *series.duplicates):
            studies.setdefault(instance.study_uid or series.series_uid, []).append(instance)
    for study_uid, instances in studies.items():
        yield study_uid, instances, (), [instance.source.name for instance in instances]
    others: dict[str, list[SkippedFile]] = {}
    for file in scan.skipped:
        others.setdefault(_name_of_points(file), []).append(file)
    for name, files in others.items():
        yield name, [], tuple(files), [file.name for file in files]


def _name_of_points(file: SkippedFile) -> str:
    name = os.path.basename(file.name)  # noqa: PTH119
    if file.reason != NOT_DICOM or not name.endswith(".json"):
        return ""
    return NAMED + as_text(name.removesuffix(".json").removesuffix(".mrk"))


def _references(instances: Iterable[InstanceRecord]) -> set[str]:
    uids: set[str] = set()
    for instance in instances:
        if instance.modality in _ANNOTATIONS:
            # Whoever reads an object that is gone says so; here it just names no series.
            with suppress(Exception):
                uids |= referenced_series(instance.source)
    return uids


def _digest(facts: Iterable[tuple]) -> str:
    return hashlib.sha256(repr(list(facts)).encode(errors="surrogatepass")).hexdigest()


# --- from places to items -----------------------------------------------------------------


def _places(database: sqlite3.Connection) -> list[Place]:
    rows = database.execute(
        "SELECT path, study_uid, series_uids, referenced_uids, identity FROM studies"
    )
    return [
        Place(os.fsdecode(path), study, frozenset(own.split()), frozenset(others.split()), identity)
        for path, study, own, others, identity in rows
    ]


def _item(position: int, group: Sequence[Place], catalog: Path) -> Item:
    ordered = sorted(group, key=lambda place: (place.path, place.study_uid))
    return Item(
        position=position,
        item_id=item_id_of(group),
        identity=_digest((place.path, place.study_uid, place.identity) for place in ordered),
        catalog=catalog,
        places=tuple((place.path, place.study_uid) for place in ordered),
    )


# --- reading an item ----------------------------------------------------------------------


def read_scan(catalog: Path, places: Iterable[tuple[str, str]]) -> DicomScan:
    """Get the headers of an item; no file of it is opened.

    Raises
    ------
    BatchError
        If the catalog holds something else.
    """
    query = "SELECT scan FROM studies WHERE path = ? AND study_uid = ?"
    with closing(sqlite3.connect(f"{catalog.absolute().as_uri()}?mode=ro", uri=True)) as database:
        scans = [
            unpack(database.execute(query, (os.fsencode(path), study_uid)).fetchone()[0])
            for path, study_uid in places
        ]
    instances = (
        instance
        for scan in scans
        for series in scan.series
        for instance in (*series.instances, *series.duplicates)
    )
    return DicomScan(
        group_instances(instances), tuple(file for scan in scans for file in scan.skipped)
    )
