"""MHub's patterns for the layout of an input folder, parsed.

A pattern has one segment per folder level, separated by slashes:

- ``CT.nrrd``: exactly that name; ``CT.nrrd$file`` also keeps it as the attribute ``file``;
- ``$patientID``: any name, kept as an attribute;
- ``re:REGEX::``: a name that the whole expression matches. Parts behind it, each closed by the
  next ``::``, speak of its groups in turn: ``text``, ``$key`` or ``text$key``.

Behind the name, ``@instance`` or ``@instance:key=value`` marks what is one case, and
``@nrrd:mod=ct`` declares data.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from oncofm.errors import StructurePatternError

FILE_TYPES = frozenset(
    ("none", "nrrd", "nifti", "mha", "tiff", "dicom", "dicomseg", "rtstruct", "json", "csv", "txt")
)
"""The types that MHub knows, without its logs."""

FOLDER_TYPES = frozenset(("dicom", "dicomseg", "rtstruct"))
"""Types of which a whole folder may be the data."""

_KEY = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class DataDeclaration:
    """What a matched name is.

    Attributes
    ----------
    file_type : str
        One of `FILE_TYPES`.
    meta : mapping of str to str
        For example ``{"mod": "ct"}``.
    """

    file_type: str
    meta: Mapping[str, str]


@dataclass(frozen=True)
class Segment:
    """One folder level of a pattern.

    Attributes
    ----------
    literal : str
        The name it asks for, empty if any.
    regex : re.Pattern or None
        What the whole name must match.
    key : str
        Attribute that keeps the name, or empty.
    group_texts, group_keys : tuple of str
        What each group of the expression must be, and the attribute that keeps it; or empty.
    marks_instance : bool
        True with ``@instance``.
    attributes : mapping of str to str
        Given with ``@instance:key=value``.
    data : tuple of DataDeclaration
        In the order of the pattern.
    """

    literal: str = ""
    regex: re.Pattern[str] | None = None
    key: str = ""
    group_texts: tuple[str, ...] = ()
    group_keys: tuple[str, ...] = ()
    marks_instance: bool = False
    attributes: Mapping[str, str] = field(default_factory=dict)
    data: tuple[DataDeclaration, ...] = ()

    @property
    def rank(self) -> int:
        """Lowest wins where several segments match a name: expression, name, placeholder."""
        return 0 if self.regex else 1 if self.literal else 2

    @property
    def captured_keys(self) -> frozenset[str]:
        """The attributes that a match gives."""
        return frozenset(filter(None, (self.key, *self.group_keys)))

    def match(self, name: str) -> dict[str, str] | None:
        """Match a file or folder name.

        Returns
        -------
        dict of str to str or None
            Captured attributes; None if the name does not match.
        """
        if self.regex is None:
            if self.literal not in ("", name):
                return None
            return {self.key: name} if self.key else {}
        matched = self.regex.fullmatch(name)
        if matched is None:
            return None
        captured: dict[str, str] = {}
        # The lists are as long as there are parts, which may be fewer than the groups.
        for value, wanted, key in zip(
            matched.groups(), self.group_texts, self.group_keys, strict=False
        ):
            if wanted not in ("", value):
                return None
            if key and (value in (None, "", ".", "..") or captured.get(key, value) != value):
                return None  # nothing that an instance or an output folder can be called by
            if key:
                captured[key] = value
        return captured


Pattern = tuple[Segment, ...]


def parse_import_id(import_id: str) -> tuple[str, ...]:
    """Split ``patientID`` or ``patientID/studyID`` into attribute names.

    Raises
    ------
    StructurePatternError
        If a part is no attribute name.
    """
    keys = tuple(import_id.split("/"))
    if not all(map(_KEY.fullmatch, keys)):
        raise StructurePatternError(
            f"import_id {import_id!r} is no attribute name; write patientID, or several names "
            "separated by slashes."
        )
    return keys


def parse_patterns(texts: Sequence[str], import_keys: Sequence[str]) -> tuple[Pattern, ...]:
    """Parse the patterns of a workflow.

    Parameters
    ----------
    texts : sequence of str
        As they stand in the configuration.
    import_keys : sequence of str
        Attributes that every declaration of data must have, so that it belongs to an instance.

    Raises
    ------
    StructurePatternError
        If there is none, or one of them cannot be used; the sentence says why.
    """
    if not texts:
        raise StructurePatternError("There is no structure pattern; give at least one.")
    patterns = tuple(map(parse_pattern, texts))
    for text, pattern in zip(texts, patterns, strict=True):
        _check_import_keys(text, pattern, import_keys)
    captured = frozenset[str]().union(*(s.captured_keys for p in patterns for s in p))
    for text, pattern in zip(texts, patterns, strict=True):
        given = {key for segment in pattern for key in segment.attributes} & captured
        if given:
            raise _unusable(
                text, f"it gives {min(given)} a value, though a pattern takes it from names"
            )
    return patterns


def parse_pattern(text: str) -> Pattern:
    """Parse one pattern.

    Raises
    ------
    StructurePatternError
        If it does not follow the rules above, or declares nothing.
    """
    pattern: list[Segment] = []
    rest: str | None = text
    while rest is not None:
        segment, rest = _parse_segment(rest, text)
        pattern.append(segment)
    if not any(segment.data or segment.marks_instance for segment in pattern):
        raise _unusable(text, "it declares nothing; end it with @<file type>:<key>=<value>")
    return tuple(pattern)


def _parse_segment(rest: str, text: str) -> tuple[Segment, str | None]:
    """Parse the first segment; also return what follows its slash, None at the end."""
    if rest.startswith("re:"):
        return _parse_regex_segment(rest, text)
    head, slash, tail = rest.partition("/")
    name, *imports = head.split("@")
    literal, dollar, key = name.partition("$")
    if not name or (dollar and not _KEY.fullmatch(key)):
        raise _unusable(text, f"its segment {head!r} is neither a name nor $ and a word")
    if literal.startswith(".") or literal == "__MACOSX":
        raise _unusable(text, f"it names {literal!r}, but hidden entries are never looked at")
    return _segment(imports, text, literal=literal, key=key), tail if slash else None


def _parse_regex_segment(rest: str, text: str) -> tuple[Segment, str | None]:
    expression, closing, behind = rest.removeprefix("re:").partition("::")
    if not closing or "/re:" in expression:
        raise _unusable(text, "a regular expression in it is not closed by ::")
    try:
        regex = re.compile(expression)
    except (re.error, OverflowError, RecursionError) as error:
        raise _unusable(text, f"its regular expression is none ({error})") from error
    head, slash, tail = behind.partition("/")
    names, imports = [], []
    for part in head.split("::"):
        name, *declared = part.split("@")
        names.append(name.partition("$"))
        imports += declared
    for index, (wanted, dollar, key) in enumerate(names):
        if (wanted or dollar) and index >= regex.groups:
            raise _unusable(text, f"its regular expression has no group {index + 1}")
        if dollar and not _KEY.fullmatch(key):
            raise _unusable(text, f"its part {wanted + dollar + key!r} is not $ and a word")
    segment = _segment(
        imports,
        text,
        regex=regex,
        group_texts=tuple(wanted for wanted, _, _ in names),
        group_keys=tuple(key for _, _, key in names),
    )
    return segment, tail if slash else None


def _segment(imports: Sequence[str], text: str, **name) -> Segment:
    """Make a segment of what stands behind its name."""
    marks_instance = False
    attributes: dict[str, str] = {}
    data: list[DataDeclaration] = []
    for declared in imports:
        kind, *pairs = declared.split(":")
        meta = _key_values(pairs, text)
        if kind == "instance":
            marks_instance = True
            attributes |= meta
        elif kind.lower() in FILE_TYPES:
            data.append(DataDeclaration(kind.lower(), meta))
        elif kind in ("", "bundle"):
            raise _unusable(text, "it makes a bundle, which is not supported; leave that out")
        else:
            known = ", ".join(sorted(FILE_TYPES))
            raise _unusable(text, f"@{kind} is neither @instance nor one of {known}")
    return Segment(**name, marks_instance=marks_instance, attributes=attributes, data=tuple(data))


def _key_values(pairs: Sequence[str], text: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if not _KEY.fullmatch(key) or value in ("", ".", ".."):
            raise _unusable(text, f"{pair!r} is not <key>=<value>")
        values[key] = value
    return values


def _check_import_keys(text: str, pattern: Pattern, import_keys: Sequence[str]) -> None:
    known: set[str] = set()
    for segment in pattern:
        known |= segment.captured_keys | segment.attributes.keys()
        missing = [key for key in import_keys if key not in known]
        if segment.data and missing:
            raise _unusable(
                text,
                f"its data have no {missing[0]}, which import_id asks for; capture it as "
                f"${missing[0]} in a folder or file name",
            )


def _unusable(text: str, problem: str) -> StructurePatternError:
    return StructurePatternError(f"Structure pattern {text!r} cannot be used: {problem}.")
