"""What a job leaves beside what is sent: its manifest and tables, kept as long as its reports."""

import contextlib
import shutil
from pathlib import Path

JOBS_FOLDER = "jobs"
"""Below the node's folder: by study and revision."""


def keep_papers(output: Path, folder: Path, key: str, revision: int) -> None:
    """Move the files of a job to where they stay; those of an earlier try are replaced.

    Parameters
    ----------
    output : pathlib.Path
        Where the job wrote; its folders are left alone.
    folder : pathlib.Path
        The node's.
    key : str
        Hash of the study's UID.
    revision : int
        That the job has, or would have if it had ended with reports.
    """
    files = [path for path in output.glob("*") if path.is_file()]
    target = folder / JOBS_FOLDER / key / str(revision)
    if not files:
        return
    with contextlib.suppress(OSError):  # on a full disk: no report should wait for them
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for path in files:
            path.replace(target / path.name)
