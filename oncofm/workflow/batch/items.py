"""What a batch works on: items, each read by one process and committed as a whole."""

from dataclasses import dataclass
from pathlib import Path

from oncofm.seeds.table import SeedTable


@dataclass(frozen=True)
class Item:
    """A piece of the input that stands on its own: a study, or a row of a manifest.

    Attributes
    ----------
    position : int
        Place in the tables: the order of the plan.
    item_id : str
        Unique in the plan: Study Instance UID, or what the manifest calls it.
    identity : str
        SHA-256 of what the item is made of: paths, sizes and times of its files, and what the
        manifest says, such as addresses. Another identity is another input.
    paths : tuple of pathlib.Path
        Folders, archives or volume files to look at, if no catalog knows them.
    seeds : pathlib.Path, SeedTable or None
        What lists the lesions; None takes the DICOM objects among the files.
    image_url, seeds_url : str
        Address of a study, series or instance on a DICOMweb server that is fetched instead of
        `paths` or `seeds`; see `oncofm.workflow.batch.remote`.
    folder : pathlib.Path or None
        Where it is fetched to; None takes a temporary folder.
    catalog : pathlib.Path or None
        The catalog that knows its files; see `oncofm.workflow.batch.catalog`.
    places : tuple of (str, str)
        Where the catalog has them: folder and Study Instance UID.
    """

    position: int
    item_id: str
    identity: str
    paths: tuple[Path, ...] = ()
    seeds: Path | SeedTable | None = None
    image_url: str = ""
    seeds_url: str = ""
    folder: Path | None = None
    catalog: Path | None = None
    places: tuple[tuple[str, str], ...] = ()


def as_text(name: str) -> str:
    r"""Write what is no text in the name of a file as ``\udcff``, to store it as one."""
    return name.encode(errors="backslashreplace").decode()
