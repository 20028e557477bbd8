"""Which files of a large folder belong together: studies, and what refers to them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from oncofm.workflow.batch.items import as_text

NAMED = "named "
"""In front of a name that stands in the place of a Study Instance UID."""


@dataclass(frozen=True)
class Place:
    """The files of one study in one folder; or those of no study, but with a name in common.

    Files that are no DICOM have no study; those of points, which may be named after a series, are
    kept apart by ``named `` and that name in its place.
    """

    path: str
    study_uid: str
    series_uids: frozenset[str]
    referenced_uids: frozenset[str]
    identity: str


def connected(places: Iterable[Place]) -> list[list[Place]]:
    """Group the places of one study, and of studies that refer to each other's series."""
    places = list(places)
    parent = list(range(len(places)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    owner: dict[str, int] = {}
    for index, place in enumerate(places):
        names = [f"series {uid}" for uid in place.series_uids]
        if _is_study(place):
            names.append(f"study {place.study_uid}")
        for name in names:
            parent[root(index)] = root(owner.setdefault(name, index))
    for index, place in enumerate(places):
        names = [f"series {uid}" for uid in place.referenced_uids if f"series {uid}" in owner]
        if not names and not _is_study(place):
            # They have nothing to do with each other, but for lying in one folder.
            names = [f"folder {place.path}"]
        for name in names:
            parent[root(index)] = root(owner.setdefault(name, index))
    groups: dict[int, list[Place]] = {}
    for index, place in enumerate(places):
        groups.setdefault(root(index), []).append(place)
    return list(groups.values())


def item_id_of(group: Sequence[Place]) -> str:
    """Call a group by the first of its studies, or by its folder."""
    uids = [place.study_uid for place in group if _is_study(place)]
    return min(uids) if uids else as_text(group[0].path)


def _is_study(place: Place) -> bool:
    return place.study_uid != "" and not place.study_uid.startswith(NAMED)
