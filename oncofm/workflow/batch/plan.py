"""What there is to do: the items of a manifest or folder, and those that no process has done."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from oncofm.errors import BatchError, InputNotFoundError
from oncofm.workflow.batch.catalog import catalog_items
from oncofm.workflow.batch.items import Item
from oncofm.workflow.batch.ledger import REPORT_FAILED, Entry
from oncofm.workflow.batch.manifest_file import SUFFIXES, manifest_items
from oncofm.workflow.batch.options import BatchOptions
from oncofm.workflow.batch.remote import FETCHED_FOLDER
from oncofm.workflow.case import CaseState

CATALOG_FILE = "catalog.sqlite"


def require_source(source: Path, output: Path) -> None:
    """Insist on an input that is there, and is not the output.

    Raises
    ------
    InputNotFoundError
        If it does not exist.
    BatchError
        If it is the output, or cannot be looked at.
    """
    try:
        exists = source.exists()
    except OSError as error:
        raise BatchError(
            f"{source} cannot be looked at ({error.strerror}); correct it, or mend the permissions "
            "of its folders."
        ) from error
    if not exists:
        raise InputNotFoundError(f"{source} does not exist; name a manifest or a folder.")
    if source.resolve() == output.resolve():
        raise BatchError(f"{source} is input and output at once; choose another output folder.")


def plan_items(source: Path, output: Path, shard: tuple[int, int] = (0, 1)) -> list[Item]:
    """List the items of a manifest or folder, or those of one shard.

    Raises
    ------
    InputNotFoundError
        If the source does not exist.
    BatchError
        If it is neither, or empty, or the output.
    """
    require_source(source, output)
    if source.is_dir():
        items = catalog_items(source, output / CATALOG_FILE)
    elif source.suffix.lower() in SUFFIXES:
        items = manifest_items(source, output / FETCHED_FOLDER)
    else:
        raise BatchError(
            f"{source} is neither a folder nor one of {', '.join(SUFFIXES)}; name one of those."
        )
    if not items:
        raise BatchError(f"{source} is empty; name a manifest with rows, or a folder with files.")
    number, n_shards = shard
    return items[number::n_shards]


def left_to_do(
    plan: Sequence[Item], results: Mapping[str, Entry], options: BatchOptions
) -> list[Item]:
    """List the items without a result, and with `retry_failed` those that failed, up to a limit.

    Parameters
    ----------
    plan : sequence of Item
        All of them.
    results : mapping of str to Entry
        Item id -> what is known, in the configuration at hand.
    options : BatchOptions
        What to do again, and how many.
    """

    def is_done(item: Item) -> bool:
        entry = results.get(item.item_id)
        if entry is None or entry.identity != item.identity:
            return False
        has_failed = entry.state == CaseState.FAILED or entry.reason == REPORT_FAILED
        return not (options.retry_failed and has_failed)

    todo = [item for item in plan if not is_done(item)]
    return todo if options.limit is None else todo[: options.limit]
