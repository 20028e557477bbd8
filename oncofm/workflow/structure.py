"""Cases of a folder whose layout MHub's patterns describe."""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from oncofm.errors import InputNotFoundError, StructurePatternError
from oncofm.notices import Notice
from oncofm.workflow.structure_pattern import (
    FOLDER_TYPES,
    DataDeclaration,
    Pattern,
    Segment,
    parse_import_id,
    parse_patterns,
)


@dataclass(frozen=True)
class StructureFile:
    """One file, or a folder of DICOM files, that a pattern declares as data.

    Attributes
    ----------
    path : pathlib.Path
        Below the folder that was given.
    file_type : str
        ``nrrd``, ``nifti``, ``mha``, ``json``, ``dicom``, ``dicomseg``, ``rtstruct`` ...
    meta : dict of str to str
        As declared (``{"mod": "ct"}``), with the attributes captured on the way to the file.
    """

    path: Path
    file_type: str
    meta: dict[str, str]


@dataclass(frozen=True)
class StructureInstance:
    """One case.

    Attributes
    ----------
    instance_id : str
        Values of the attributes that ``import_id`` names, joined with slashes.
    attributes : dict of str to str
        What was captured where the id became complete, and what ``@instance`` marks add; where
        two places differ, the first in order.
    files : tuple of StructureFile
        In the order of their names; empty for a folder without any of the declared data.
    """

    instance_id: str
    attributes: dict[str, str]
    files: tuple[StructureFile, ...]


@dataclass(frozen=True)
class StructureMatch:
    """What the patterns found in a folder.

    Attributes
    ----------
    instances : tuple of StructureInstance
        In the order in which sorted names lead to them.
    unmatched : tuple of pathlib.Path
        Files that no pattern took, sorted, without hidden ones. Also folders that could not be
        entered, and links to folders that no pattern followed.
    notices : tuple of Notice
        ``unreadable_folder`` and ``folder_loop``: why a folder was not entered.
    """

    instances: tuple[StructureInstance, ...]
    unmatched: tuple[Path, ...]
    notices: tuple[Notice, ...] = ()


def match_structure(folder: Path, patterns: Sequence[str], import_id: str) -> StructureMatch:
    """Find the cases of a folder by MHub's patterns.

    A regular expression beats a name, a name beats a placeholder. A name that is captured twice
    under one key must be the same. Every folder in which the id is complete is an instance, with
    or without data, so no patient is lost for want of a file.

    Parameters
    ----------
    folder : pathlib.Path
        Where the first segment of the patterns is matched.
    patterns : sequence of str
        For example ``$patientID/CT.nrrd@instance@nrrd:mod=ct``; the rules stand in
        `oncofm.workflow.structure_pattern`.
    import_id : str
        Attribute that tells instances apart, or several of them joined with slashes.

    Returns
    -------
    StructureMatch
        Instances, and what no pattern took.

    Raises
    ------
    InputNotFoundError
        If the folder does not exist or cannot be read.
    StructurePatternError
        If a pattern or `import_id` cannot be used, or two patterns give one attribute two values
        at the same place.
    """
    import_keys = parse_import_id(import_id)
    parsed = parse_patterns(patterns, import_keys)
    try:
        if not folder.is_dir():
            raise InputNotFoundError(f"The input folder {folder} does not exist.")
        os.listdir(folder)  # noqa: PTH208 - only to learn whether it can be read
    except OSError as error:
        raise InputNotFoundError(
            f"The input folder {folder} cannot be read ({error.strerror or error}); mend its "
            "permissions."
        ) from error
    found = _Found(import_keys)
    _match_folder(folder, parsed, {}, frozenset([_identity(folder)]), found)
    return StructureMatch(
        instances=tuple(
            StructureInstance(instance_id, draft.attributes, tuple(draft.files))
            for instance_id, draft in found.instances.items()
        ),
        unmatched=tuple(sorted(_outside(found.data_folders, found.unmatched))),
        notices=tuple(found.notices),
    )


@dataclass
class _InstanceDraft:
    attributes: dict[str, str]
    files: list[StructureFile] = field(default_factory=list)


@dataclass
class _Found:
    """What was found so far."""

    import_keys: tuple[str, ...]
    instances: dict[str, _InstanceDraft] = field(default_factory=dict)
    data_folders: set[Path] = field(default_factory=set)
    unmatched: list[Path] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    def instance(self, attributes: dict[str, str]) -> _InstanceDraft | None:
        """Find or make the instance of a place; None where the id is not complete yet."""
        if not attributes.keys() >= set(self.import_keys):
            return None
        instance_id = "/".join(attributes[key] for key in self.import_keys)
        return self.instances.setdefault(instance_id, _InstanceDraft(dict(attributes)))


def _match_folder(
    folder: Path,
    patterns: Iterable[Pattern],
    attributes: dict[str, str],
    above: frozenset[tuple[int, int]],
    found: _Found,
) -> None:
    """Match the entries of one folder, and those below; it is no deeper than the patterns."""
    for path in _entries(folder, found):
        mode = _mode(path)
        is_folder = stat.S_ISDIR(mode)
        matched, captured = _matching(path.name, is_folder, patterns, attributes)
        if not (is_folder or stat.S_ISREG(mode)):
            matched = []  # a pipe or device, which nobody should open
        here = _with_marks(path, matched, {**attributes, **captured})
        data = _declared(matched, is_folder)
        deeper = [pattern[1:] for pattern in matched if len(pattern) > 1]
        _note_instance(matched, here, is_folder, data, path, found)
        if not is_folder:
            if not data:
                found.unmatched.append(path)
            continue
        if data:
            found.data_folders.add(path)
        elif not deeper:
            found.unmatched += _files_below(path, found)
        if not deeper:
            continue
        if (identity := _identity(path)) in above:
            message = f"Folder {path} leads back to a folder above it and was not entered."
            found.notices.append(Notice("folder_loop", message))
            found.unmatched.append(path)
        else:
            _match_folder(path, deeper, here, above | {identity}, found)


def _matching(
    name: str, is_folder: bool, patterns: Iterable[Pattern], attributes: dict[str, str]
) -> tuple[list[Pattern], dict[str, str]]:
    """Patterns of the best rank whose first segment matches, and what they capture."""
    candidates: list[tuple[Pattern, dict[str, str]]] = []
    for pattern in patterns:
        captured = pattern[0].match(name) if _fits(pattern, is_folder) else None
        if captured is not None and _agree(captured, attributes):
            candidates.append((pattern, captured))
    rank = min((pattern[0].rank for pattern, _ in candidates), default=0)
    matched: list[Pattern] = []
    merged: dict[str, str] = {}
    for pattern, captured in candidates:
        if pattern[0].rank == rank and _agree(captured, merged):
            matched.append(pattern)
            merged |= captured
    return matched, merged


def _fits(pattern: Pattern, is_folder: bool) -> bool:
    """Whether the first segment can be a folder, or a file."""
    first: Segment = pattern[0]
    if is_folder:
        types = {declared.file_type for declared in first.data}
        return len(pattern) > 1 or not types or bool(types & FOLDER_TYPES)
    return len(pattern) == 1 or bool(first.data)


def _agree(captured: dict[str, str], known: dict[str, str]) -> bool:
    return all(known.get(key, value) == value for key, value in captured.items())


def _with_marks(
    path: Path, matched: Iterable[Pattern], attributes: dict[str, str]
) -> dict[str, str]:
    """Add what ``@instance:key=value`` says."""
    for pattern in matched:
        for key, value in pattern[0].attributes.items():
            if attributes.setdefault(key, value) != value:
                raise StructurePatternError(
                    f"The structure patterns give the attribute {key} two values at {path}; "
                    "give it once."
                )
    return attributes


def _declared(matched: Iterable[Pattern], is_folder: bool) -> list[DataDeclaration]:
    """Collect the declarations of all patterns, each once."""
    data: list[DataDeclaration] = []
    for pattern in matched:
        for declared in pattern[0].data:
            fits = not is_folder or declared.file_type in FOLDER_TYPES
            if fits and declared not in data:
                data.append(declared)
    return data


def _note_instance(
    matched: Sequence[Pattern],
    here: dict[str, str],
    is_folder: bool,
    data: Iterable[DataDeclaration],
    path: Path,
    found: _Found,
) -> None:
    """Make an instance of a folder in which the id is complete, and put data into theirs."""
    files = [StructureFile(path, one.file_type, {**one.meta, **here}) for one in data]
    marked = any(pattern[0].marks_instance for pattern in matched)
    if not matched or not (is_folder or files):
        return
    only_id = {key: here[key] for key in found.import_keys if key in here}
    instance = found.instance(here if is_folder or marked else only_id)
    if instance is None:
        return
    if marked:
        instance.attributes = {**here, **instance.attributes}
    instance.files += files


# --- the file system ----------------------------------------------------------------------


def _entries(folder: Path, found: _Found) -> list[Path]:
    """Visible entries of a folder, sorted by name."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names only, no object per file
    except OSError as error:
        problem = error.strerror or type(error).__name__
        message = f"Folder {folder} cannot be read ({problem}); mend its permissions."
        found.notices.append(Notice("unreadable_folder", message))
        found.unmatched.append(folder)
        return []
    return [folder / name for name in names if not name.startswith(".") and name != "__MACOSX"]


def _files_below(folder: Path, found: _Found) -> Iterator[Path]:
    """Yield the files of a folder that no pattern follows; links to folders stay closed."""
    pending = [folder]
    while pending:
        path = pending.pop()
        # Path.is_symlink raises on paths that are too long, islink does not.
        if os.path.islink(path) or not stat.S_ISDIR(_mode(path)):  # noqa: PTH114
            yield path
        else:
            pending += _entries(path, found)


def _outside(folders: set[Path], paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path not in folders and folders.isdisjoint(path.parents):
            yield path


def _mode(path: Path) -> int:
    """Mode behind links; what cannot be asked counts as a file, and its reader will complain."""
    try:
        return path.stat().st_mode
    except OSError:
        return stat.S_IFREG


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
