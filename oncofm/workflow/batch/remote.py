"""Items whose files are on a DICOMweb server: fetched, read, deleted."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from oncofm.dicomweb.address import parse_resource
from oncofm.dicomweb.environment import open_server
from oncofm.dicomweb.fetch import fetch
from oncofm.errors import WebRefusedError
from oncofm.seeds.table import SeedTable
from oncofm.workflow.batch.items import Item

FETCHED_FOLDER = "fetched"
"""Below the output folder; holds a folder for each item in hand."""

_IMAGES, _SEEDS = "images", "seeds"


@contextmanager
def fetched(item: Item, keep_volumes: bool) -> Iterator[Item]:
    """Give an item whose files are all here, as long as it is entered.

    Parameters
    ----------
    item : Item
        Any; one without addresses is given as it is.
    keep_volumes : bool
        Whether the files will be looked at again: then they stay in the item's folder, until
        `discard` is called by whoever planned the batch.

    Raises
    ------
    WebError
        If something of it cannot be had.
    OutputNotWritableError
        If the folder is full, or cannot be written.
    """
    if not (item.image_url or item.seeds_url):
        yield item
        return
    folder = item.folder
    if folder is None or not folder.parent.parent.is_dir():  # on another machine, for example
        if keep_volumes:
            raise WebRefusedError(
                f"Reports and key images of item {item.item_id} need its files, which cannot be "
                "kept here; fetch them into a folder first, or do without."
            )
        folder = Path(tempfile.mkdtemp(prefix="oncofm-fetched-"))
    try:
        discard(folder)  # what a process left that was killed
        yield _fetch(item, folder)
    finally:
        if not keep_volumes:
            discard(folder)


def discard(folder: Path | None) -> None:
    """Remove what was fetched into a folder, and what holds it if nothing else is in there."""
    if folder is None:
        return
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.name == FETCHED_FOLDER:
        with suppress(OSError):
            folder.parent.rmdir()


def _fetch(item: Item, folder: Path) -> Item:
    paths, seeds = item.paths, item.seeds
    for url, target in ((item.image_url, folder / _IMAGES), (item.seeds_url, folder / _SEEDS)):
        if url:
            resource = parse_resource(url)
            fetch(open_server(resource.service), resource, target)
    if item.image_url:
        paths = (folder / _IMAGES,)
    if item.seeds_url:
        seeds = folder / _SEEDS
    elif isinstance(seeds, SeedTable) and item.image_url:
        # The rows name the address; assignment goes by where the files lie.
        seeds = replace(seeds, image_paths=(str(folder / _IMAGES),) * len(seeds.image_paths))
    return replace(item, paths=paths, seeds=seeds)
