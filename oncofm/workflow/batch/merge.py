"""Several batches as one: the shards of a study, or studies that were computed alike."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from oncofm.errors import BatchError
from oncofm.results.files import prepare_output_folder
from oncofm.workflow.batch.finish import TABLES, CaseCounts, write_tables
from oncofm.workflow.batch.ledger import Entry, Ledger, read_ledger

CONFIGURATION_FACT = "configuration"
_NEVER_MIXED = ("model", "weights_sha256", "profile", "precision")
"""What makes features incomparable."""


@dataclass(frozen=True)
class MergeResult:
    """What was merged.

    Attributes
    ----------
    n_items, n_duplicates : int
        Items in the tables, and items that came twice, of which one was taken.
    differences : tuple of str
        Settings that the batches do not share; their features can be compared all the same.
    counts : CaseCounts
        Cases and lesions by state.
    """

    n_items: int
    n_duplicates: int
    differences: tuple[str, ...]
    counts: CaseCounts


def merge_batches(folders: Sequence[Path], output: Path) -> MergeResult:
    """Write the tables of several batches as one, in the order of their plans.

    Parameters
    ----------
    folders : sequence of pathlib.Path
        Output folders of batches, also of unfinished ones.
    output : pathlib.Path
        Folder for the tables, another one than these; or a file that ends in ``.parquet`` for the
        features, the other tables then being ``<stem>-cases.csv`` ... beside it.

    Raises
    ------
    BatchError
        If a folder holds no batch, their features cannot be compared, two batches have different
        inputs of one name, or nothing is finished.
    """
    place, names = _tables(output)
    if place.resolve() in [folder.resolve() for folder in folders]:
        raise BatchError(f"{place} is one of the batches to merge; choose another output folder.")
    with ExitStack() as stack:
        ledgers = [stack.enter_context(read_ledger(folder)) for folder in folders]
        configurations = [_configuration(*each) for each in zip(ledgers, folders, strict=True)]
        differences = _differences(configurations, folders)
        chosen, n_duplicates = _choose(ledgers, folders)
        if not chosen:
            raise BatchError(f"No batch of {len(folders)} has finished an item; run them first.")
        prepare_output_folder(place)
        wanted = [(source, entry.part, entry.item_id) for source, entry in chosen]
        sources = [
            (folder, ledger.parts()) for folder, ledger in zip(folders, ledgers, strict=True)
        ]
        has_predictions = any(
            name.startswith("predictions-")
            for source, part, _ in wanted
            for name in sources[source][1][part]
        )
        counts = write_tables(place, sources, wanted, with_predictions=has_predictions, names=names)
    return MergeResult(len(wanted), n_duplicates, differences, counts)


def _tables(output: Path) -> tuple[Path, dict[str, str]]:
    """Split what the user named into a folder and the names of the tables in it."""
    if output.suffix.lower() != ".parquet":
        return output, TABLES
    names = {kind: f"{output.stem}-{name}" for kind, name in TABLES.items()}
    return output.parent, names | {"features": output.name}


def _configuration(ledger: Ledger, folder: Path) -> Mapping[str, object]:
    text = ledger.fact(CONFIGURATION_FACT)
    if text is None:
        raise BatchError(f"The batch in {folder} has not computed anything; run it first.")
    return json.loads(text)


def _differences(
    configurations: Sequence[Mapping[str, object]], folders: Sequence[Path]
) -> tuple[str, ...]:
    first = configurations[0]
    differences: dict[str, None] = {}
    for configuration, folder in zip(configurations, folders, strict=True):
        for name, value in configuration.items():
            if value == first.get(name):
                continue
            if name in _NEVER_MIXED:
                raise BatchError(
                    f"{folder} was computed with another {name} than {folders[0]} ({value}, not "
                    f"{first.get(name)}); such features are never mixed."
                )
            differences[name] = None
    return tuple(differences)


def _choose(
    ledgers: Sequence[Ledger], folders: Sequence[Path]
) -> tuple[list[tuple[int, Entry]], int]:
    """Take each item once, from the batch that has computed it last."""
    chosen: dict[str, tuple[int, Entry]] = {}
    n_seen: Counter[str] = Counter()
    for source, ledger in enumerate(ledgers):
        for item_id, entry in ledger.results().items():
            n_seen[item_id] += 1
            before = chosen.get(item_id)
            if before is not None and before[1].identity != entry.identity:
                raise BatchError(
                    f"{folders[before[0]]} and {folders[source]} have different inputs of one "
                    f"name, {item_id}; merge one of them, or name the cases apart."
                )
            if before is None or before[1].finished_at < entry.finished_at:
                chosen[item_id] = (source, entry)
    ordered = sorted(chosen.values(), key=lambda each: (each[1].position, each[1].item_id))
    return ordered, sum(count - 1 for count in n_seen.values())
