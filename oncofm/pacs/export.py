"""A study as a folder: what the node knows of it and made of it, for who must look into it."""

import gzip
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from oncofm.errors import OutputNotWritableError
from oncofm.pacs.audit import AUDIT_FILE
from oncofm.pacs.config import PacsConfig
from oncofm.pacs.database import Database, Study
from oncofm.pacs.history import steps
from oncofm.pacs.node import SPOOL_FOLDER
from oncofm.pacs.papers import JOBS_FOLDER
from oncofm.pacs.readable import iso
from oncofm.pacs.status import read_status
from oncofm.pacs.worker import REPORTS_FOLDER

IMAGES = "images"
_README = """\
What an oncofm node knows of some studies, and what it made of them. For research use only.

node.json                 how the node stood: version, rules, destinations, last errors
STUDY/study.json          state, objects, deliveries, history; UIDs only
STUDY/audit.jsonl         what the audit log says about it; UIDs only
STUDY/jobs/N/             manifest and tables of the job of revision N: PATIENT DATA, the labels
                          of segments are free text
STUDY/reports/N/          what was made to be sent: PATIENT DATA
STUDY/images/             what was received, if that was asked for: PATIENT DATA
"""


def describe_study(database: Database, study: Study) -> dict[str, Any]:
    """Tell all that is known of a study, by UID; descriptions and labels stay out.

    Returns
    -------
    dict
        What JSON can hold; times are UTC, ISO 8601.
    """
    objects = [
        {
            "sop_uid": item.sop_uid,
            "sop_class": item.facts.sop_class,
            "series_uid": item.facts.series_uid,
            "modality": item.facts.modality,
            "n_bytes": item.n_bytes,
            "present": item.present,
            "in_last_job": item.done_file == item.file,
            "calling": item.calling,
            "called": item.called,
            "received_at": iso(item.received_at),
        }
        for item in database.objects(study.key)
    ]
    return {
        **plain(study),
        "objects": objects,
        "deliveries": [plain(one) for one in database.deliveries("study_key = ?", study.key)],
        "history": [plain(step) for step in steps(database, study.key)],
    }


def plain(row: Any) -> dict[str, Any]:
    """Make of a row what people and programs can read."""
    return {
        name: iso(value) if name == "at" or name.endswith("_at") else value
        for name, value in asdict(row).items()
    }


def export(
    database: Database,
    config: PacsConfig,
    studies: Sequence[Study],
    target: Path,
    now: float,
    *,
    images: bool,
) -> None:
    """Write what is known and was made of studies.

    Parameters
    ----------
    database : Database
        The node's.
    config : PacsConfig
        Its configuration.
    studies : sequence of Study
        Which.
    target : pathlib.Path
        Folder, which must not exist; it is there when all of it is.
    now : float
        Seconds since 1970.
    images : bool
        Whether received objects go with the rest.

    Raises
    ------
    OutputNotWritableError
        If the folder exists, or cannot be written.
    """
    if target.exists() or target.is_symlink():
        raise OutputNotWritableError(f"{target} exists already; name a folder that does not.")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir(mode=0o700)
        _write(temporary / "README.txt", _README)
        _write_json(temporary / "node.json", asdict(read_status(database, config, now)))
        with database.transaction():
            described = {study.key: describe_study(database, study) for study in studies}
        lines = _audit_lines(config.node.folder, described.values())
        for study in studies:
            folder, content = temporary / study.study_uid, described[study.key]
            gone = _copy_study(database, config.node.folder, study, folder, images)
            _write_json(folder / "study.json", {**content, "files_gone": gone})
            _write(folder / "audit.jsonl", "".join(lines[study.study_uid]))
        temporary.rename(target)
    except OSError as error:
        raise OutputNotWritableError(
            f"{target} cannot be written ({error.strerror or error}); free space or choose another "
            "folder."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _copy_study(
    database: Database, node: Path, study: Study, folder: Path, images: bool
) -> list[str]:
    """Copy files; gives the names of those that were deleted meanwhile."""
    sources = {
        Path(kind, path.relative_to(node / kind / study.key)): path
        for kind in (REPORTS_FOLDER, JOBS_FOLDER)
        for path in sorted((node / kind / study.key).rglob("*"))
        if path.is_file()
    }
    if images:
        present = (item for item in database.objects(study.key) if item.present)
        spool = node / SPOOL_FOLDER
        sources |= {Path(IMAGES, f"{one.sop_uid}.dcm"): spool / one.file for one in present}
    folder.mkdir()
    return [str(name) for name, path in sources.items() if not _copy(path, folder / name)]


def _copy(source: Path, target: Path) -> bool:
    """Copy a file; says whether it was there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = source.open("rb")
    except FileNotFoundError:
        return False
    with file, target.open("xb") as copy:
        shutil.copyfileobj(file, copy)
        copy.flush()
        os.fsync(copy.fileno())
    return True


def _audit_lines(folder: Path, described: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Lines of the audit log, and of what it was before, by the study that they are about."""
    owners: dict[str, str] = {}
    for study in described:
        owners[study["study_uid"]] = study["study_uid"]
        for item in (*study["objects"], *study["deliveries"]):
            owners[item["sop_uid"]] = study["study_uid"]
    found: dict[str, list[str]] = {uid: [] for uid in owners.values()}
    for path in sorted(folder.glob(f"{AUDIT_FILE}*"), key=lambda path: path.stat().st_mtime):
        for line in _lines(path):
            owner = owners.get(_about(line))
            if owner is not None:
                found[owner].append(line)
    return found


def _lines(path: Path) -> Iterator[str]:
    """Read a log, also one that was compressed when it was rotated, as far as it is whole."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", errors="replace") as file:
        try:
            yield from file
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return


def _about(line: str) -> str:
    """UID of what an event is about."""
    try:
        event = json.loads(line)
        return str(event.get("study") or event.get("sop") or "")
    except (ValueError, AttributeError, RecursionError):
        return ""  # half a line: the process was killed


def _write(path: Path, text: str) -> None:
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _write_json(path: Path, content: Any) -> None:
    _write(path, json.dumps(content, indent=1) + "\n")
