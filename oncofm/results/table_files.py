"""A table in a file, or where it is too large for one, in a folder of that name."""

import contextlib
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from oncofm.errors import OutputNotWritableError
from oncofm.results.files import atomic_path
from oncofm.results.table import ResultTable, TableWriter

MOST_ROWS_PER_FILE = 2**18
"""Who writes or reads a Parquet file keeps some hundred bytes about each column of each block: with
4096 columns and as many rows in a block 0.2 GB at this length."""

Write = Callable[[ResultTable], None]
"""Takes some rows."""


@contextlib.contextmanager
def open_table(target: Path) -> Iterator[Write]:
    """Write a table in pieces; what was there before stays until all of it is written.

    Parameters
    ----------
    target : pathlib.Path
        ``.csv``, or ``.parquet``: a file, or of more than `MOST_ROWS_PER_FILE` rows a folder of
        that name with files ``<stem>-00001.parquet`` ..., which Parquet libraries read as one
        table. A piece with more rows is not divided.

    Yields
    ------
    callable
        Takes the next rows.

    Raises
    ------
    OutputNotWritableError
        If a file cannot be written, or a folder of that name holds other files.
    """
    if target.suffix.lower() == ".csv":
        with atomic_path(target) as temporary, TableWriter(temporary, ".csv") as writer:
            yield writer.write
        return
    staging = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        staging.mkdir()
        with _Files(staging, target.stem) as files:
            yield files.write
        _put(staging, target)
    except OSError as error:
        raise OutputNotWritableError(
            f"{target} cannot be written ({error.strerror or error}); free space or choose "
            "another output, then run again."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def remove_table(target: Path) -> None:
    """Remove what `open_table` has written, if there is anything."""
    if target.is_dir():
        for path in target.glob(f"{target.stem}-{'[0-9]' * 5}.parquet"):
            path.unlink()
        target.rmdir()  # fails where somebody keeps files of his own in it
    else:
        target.unlink(missing_ok=True)


class _Files:
    """Parquet files in a folder, one after another."""

    def __init__(self, folder: Path, stem: str) -> None:
        self._folder = folder
        self._stem = stem
        self._n_files = self._n_rows = 0
        self._open = contextlib.ExitStack()
        self._writer: TableWriter | None = None

    def __enter__(self) -> "_Files":
        return self

    def __exit__(self, *error: object) -> None:
        self._open.__exit__(*error)  # pyright: ignore[reportArgumentType]

    def write(self, table: ResultTable) -> None:
        n_rows = table.columns.num_rows
        is_full = self._n_rows and self._n_rows + n_rows > MOST_ROWS_PER_FILE
        if self._writer is None or is_full:
            self._writer = self._next()
        self._writer.write(table)
        self._n_rows += n_rows

    def _next(self) -> TableWriter:
        self._open.close()
        self._n_files, self._n_rows = self._n_files + 1, 0
        path = self._folder / f"{self._stem}-{self._n_files:05d}.parquet"
        temporary = self._open.enter_context(atomic_path(path))
        return self._open.enter_context(TableWriter(temporary, ".parquet"))


def _put(staging: Path, target: Path) -> None:
    """Put what was written into its place."""
    files = list(staging.iterdir())
    if len(files) == 1 and not target.is_dir():
        files[0].replace(target)
        return
    remove_table(target)
    (files[0] if len(files) == 1 else staging).rename(target)
