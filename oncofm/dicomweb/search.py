"""What a server has: QIDO-RS (PS3.18 10.6)."""

from collections.abc import Mapping
from dataclasses import dataclass

from oncofm.dicomweb.address import Resource, is_uid
from oncofm.dicomweb.server import Server
from oncofm.errors import WebAnswerError

_SOP_CLASS, _SOP_UID = "00080016", "00080018"
_STUDY_UID, _SERIES_UID = "0020000D", "0020000E"
_MODALITY, _STATION = "00080060", "00081010"
_STUDY_DESCRIPTION, _SERIES_DESCRIPTION = "00081030", "0008103E"
_N_SERIES, _N_INSTANCES = "00201206", "00201208"


@dataclass(frozen=True)
class StudyFound:
    """A study on a server.

    Attributes
    ----------
    uid : str
        Study Instance UID.
    description : str
        Free text.
    n_series, n_instances : int or None
        What it consists of, if the server says so.
    """

    uid: str
    description: str
    n_series: int | None
    n_instances: int | None


@dataclass(frozen=True)
class SeriesFound:
    """A series on a server; description and station are free text."""

    uid: str
    modality: str
    description: str
    station: str


@dataclass(frozen=True)
class InstanceFound:
    """An instance on a server; `sop_class` is empty if the server does not say it."""

    uid: str
    sop_class: str


def find_studies(server: Server, query: Mapping[str, str]) -> list[StudyFound]:
    """Find studies.

    Parameters
    ----------
    server : Server
        Where.
    query : mapping of str to str
        Keywords of attributes and what they must be, as in PS3.18 8.3.4.

    Returns
    -------
    list of StudyFound
        In the server's order.

    Raises
    ------
    WebError
        If they cannot be had.
    """
    tags = (_STUDY_UID, _STUDY_DESCRIPTION, _N_SERIES, _N_INSTANCES)
    return [
        StudyFound(
            _valid(uid, server),
            one[_STUDY_DESCRIPTION],
            _count(one[_N_SERIES]),
            _count(one[_N_INSTANCES]),
        )
        for uid, one in server.search("/studies", query, tags).items()
    ]


def find_series(server: Server, study: Resource) -> list[SeriesFound]:
    """Find all series of a study.

    Raises
    ------
    WebError
        If they cannot be had, or there are none.
    """
    tags = (_SERIES_UID, _MODALITY, _SERIES_DESCRIPTION, _STATION)
    found = server.search(f"/studies/{study.study_uid}/series", {}, tags)
    if not found:
        raise WebAnswerError(
            f"The server has no series of study {study.study_uid}; correct the UID."
        )
    return [
        SeriesFound(_valid(uid, server), one[_MODALITY], one[_SERIES_DESCRIPTION], one[_STATION])
        for uid, one in found.items()
    ]


def find_instances(server: Server, series: Resource) -> list[InstanceFound]:
    """Find all instances of a series, or the one that is asked for.

    Raises
    ------
    WebError
        If they cannot be had, or there are none.
    """
    path = f"/studies/{series.study_uid}/series/{series.series_uid}/instances"
    query = {"SOPInstanceUID": series.instance_uid} if series.instance_uid else {}
    found = server.search(path, query, (_SOP_UID, _SOP_CLASS))
    if series.instance_uid:
        found = {uid: one for uid, one in found.items() if uid == series.instance_uid}
    if not found:
        raise WebAnswerError(
            f"The server has nothing of {'instance' if series.instance_uid else 'series'} "
            f"{series.instance_uid or series.series_uid}; correct the UID."
        )
    return [InstanceFound(_valid(uid, server), one[_SOP_CLASS]) for uid, one in found.items()]


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _valid(uid: str, server: Server) -> str:
    """Return a UID that a server gave, unless it is something else, such as a path."""
    if not is_uid(uid):
        raise WebAnswerError(f"{server.url} lists something without a UID; use another server.")
    return uid
