"""The work of a reader process: an item's headers, lesions and patches.

Nothing here is shared with other processes, so that a decoder that crashes, or hangs, takes
nothing with it but the item at hand.
"""

import logging
import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from oncofm.errors import InputNotFoundError, OncofmError, UnreadableFileError
from oncofm.imaging.dicom_series import DicomSeries
from oncofm.imaging.patch import PatchSpec
from oncofm.imaging.scan import SkippedFile
from oncofm.imaging.sources import FileSource
from oncofm.logs import silence_pydicom
from oncofm.workflow.batch.catalog import read_scan
from oncofm.workflow.batch.items import Item, as_text
from oncofm.workflow.batch.remote import fetched
from oncofm.workflow.case import Case, InputVerdict
from oncofm.workflow.gather import gather
from oncofm.workflow.jitter import shift_seeds
from oncofm.workflow.run import SampledChunk, sample_case
from oncofm.workflow.settings import Settings
from oncofm.workflow.survey import Survey, survey_inputs, survey_scan

_BEHIND_THE_ENCODER = 5
"""Niceness; on two shared cores a batch is up to 9 % faster with it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ItemEnd:
    """An item was read to its end.

    Attributes
    ----------
    position : int
        Of the item.
    n_cases : int
        How many cases it has; their chunks came before.
    verdicts, skipped
        As in `oncofm.workflow.gather.Worklist`.
    """

    position: int
    n_cases: int
    verdicts: tuple[InputVerdict, ...]
    skipped: tuple[SkippedFile, ...]


@dataclass(frozen=True)
class ItemFailed:
    """An item could not be read to its end; chunks that came before count for nothing.

    Attributes
    ----------
    position : int
        Of the item.
    reason, message : str
        Reason code and sentence.
    """

    position: int
    reason: str
    message: str


Message = SampledChunk | ItemEnd | ItemFailed


def read_item(item: Item, settings: Settings, keep_volumes: bool) -> Iterator[Message]:
    """Read an item and sample its lesions.

    Parameters
    ----------
    item : Item
        What to read.
    settings : Settings
        Which lesions, and how they are sampled.
    keep_volumes : bool
        Whether somebody will look at the DICOM volumes of the cases again; else they are left out.

    Yields
    ------
    Message
        The chunks of its cases, with keys (position, number of the case), the seeds of a case only
        with its first; then one `ItemEnd`, or an `ItemFailed` at any time.
    """
    stack = ExitStack()
    try:
        item = stack.enter_context(fetched(item, keep_volumes))
        worklist = gather(_survey(item), settings)
        spec = PatchSpec(profile=settings.profile)
        is_whole = True
        for number, case in enumerate(worklist.cases):
            shifted = shift_seeds(_named(case, item), settings.jitter)
            for chunk in sample_case(shifted, spec, (item.position, number)):
                is_whole &= bool(chunk.lesions) and all(
                    lesion.patch is not None for lesion in chunk.lesions
                )
                yield replace(chunk, case=_for_the_way(chunk, keep_volumes))
            if case.volume is not None:
                case.volume.release()
        if not is_whole:
            _require_files(item)
    except OncofmError as error:
        yield ItemFailed(item.position, error.code, as_text(str(error)))
    except Exception as error:
        log.debug("item %s failed", item.item_id, exc_info=True)
        message = f"Item {item.item_id} failed while reading ({type(error).__name__})."
        yield ItemFailed(item.position, "reading_failed", message)
    else:
        verdicts = tuple(_as_text(verdict) for verdict in worklist.verdicts)
        yield ItemEnd(item.position, len(worklist.cases), verdicts, worklist.skipped)
    finally:
        stack.close()


def serve(connection: Connection, settings: Settings, keep_volumes: bool) -> None:
    """Say when it is ready, then read the items that come in, until the other end is closed."""
    # Where a thread of the encoder waits for a core, all of them wait for it.
    os.nice(_BEHIND_THE_ENCODER)
    silence_pydicom()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        connection.send(None)
        while True:
            for message in read_item(connection.recv(), settings, keep_volumes):
                connection.send(message)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _end_with_parent() -> None:
    """Do not outlive a parent that was killed, whatever a decoder is doing."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _survey(item: Item) -> Survey:
    if item.catalog is not None:
        return survey_scan(read_scan(item.catalog, item.places), seeds=item.seeds)
    if not item.paths:
        raise InputNotFoundError(f"Item {item.item_id} has no image; add its image_path.")
    _require_access(item)
    return survey_inputs(item.paths, item.seeds)


def _require_access(item: Item) -> None:
    """Tell paths that the system refuses to look at from those that lead nowhere.

    Raises
    ------
    UnreadableFileError
        If there is one.
    """
    seeds = [item.seeds] if isinstance(item.seeds, Path) else []
    for path in (*item.paths, *seeds):
        try:
            path.exists()
        except OSError as error:
            raise UnreadableFileError(
                f"A path of item {item.item_id} cannot be looked at ({error.strerror}); correct "
                "it, or mend the permissions of its folders."
            ) from error


def _require_files(item: Item) -> None:
    """Tell files that are gone since the catalog was made, all of a study or a disk, from bad ones.

    Raises
    ------
    InputNotFoundError
        If there are such files.
    """
    if item.catalog is None:
        return
    scan = read_scan(item.catalog, item.places)
    sources = [instance.source for series in scan.series for instance in series.instances]
    paths = [source.path for source in sources if isinstance(source, FileSource)]
    gone = [path for path in paths if not path.exists()]
    if gone:
        raise InputNotFoundError(
            f"{len(gone)} of {len(paths)} files of item {item.item_id} are gone, the first is "
            f"{gone[0]}; put them back, then use --resume --retry-failed."
        )


def _as_text(verdict: InputVerdict) -> InputVerdict:
    """Spell out file names that are no text; tables and ledger cannot take them."""
    error = type(verdict.error)(as_text(str(verdict.error)))
    return replace(verdict, name=as_text(verdict.name), error=error)


def _named(case: Case, item: Item) -> Case:
    """Call a volume file by its item: many a study has a thousand files of one name."""
    if case.series_uid or case.case_id not in {path.name for path in item.paths}:
        return case
    return replace(case, case_id=item.item_id)


def _for_the_way(chunk: SampledChunk, keep_volumes: bool) -> Case:
    """Send a case with its first chunk only: it may have thousands of seeds, and so of chunks."""
    if chunk.start:
        return Case(chunk.case.case_id)
    # No other volumes are asked for reports and pictures.
    keep = keep_volumes and isinstance(chunk.case.volume, DicomSeries)
    return chunk.case if keep else replace(chunk.case, volume=None)
