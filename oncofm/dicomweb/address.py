"""Addresses of studies, series and instances on a server (PS3.18 10.1)."""

import re
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from oncofm.errors import WebAddressError

_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_MAX_UID = 64
_SERVICE = re.compile(r"(?i:https?)://[A-Za-z0-9.:\[\]-]+(?:/[A-Za-z0-9._~%+:-]+)*")
_BELOW = ("studies", "series", "instances")


@dataclass(frozen=True)
class Resource:
    """A study, a series of it, or an instance of that.

    Attributes
    ----------
    service : str
        Address of the DICOMweb service, without a slash at its end.
    study_uid, series_uid, instance_uid : str
        UIDs; the last two may be empty.
    """

    service: str
    study_uid: str
    series_uid: str = ""
    instance_uid: str = ""

    @property
    def path(self) -> str:
        """Path below the service."""
        uids = (self.study_uid, self.series_uid, self.instance_uid)
        steps = zip(_BELOW, uids, strict=True)
        return "".join(f"/{name}/{uid}" for name, uid in steps if uid)

    @property
    def url(self) -> str:
        """The whole address."""
        return self.service + self.path

    def series(self, uid: str) -> "Resource":
        """Address a series of the study."""
        return replace(self, series_uid=uid, instance_uid="")

    def instance(self, uid: str) -> "Resource":
        """Address an instance of the series."""
        return replace(self, instance_uid=uid)


def is_url(text: str) -> bool:
    """Whether a text is meant as the address of something on a server."""
    return text[:8].lower().startswith(("http://", "https://"))


def is_uid(text: str) -> bool:
    """Whether a text can be a UID (PS3.5 9.1), and nothing that a path could be."""
    return len(text) <= _MAX_UID and _UID.fullmatch(text) is not None


def parse_resource(url: str) -> Resource:
    """Take the address of a study, series or instance apart.

    Parameters
    ----------
    url : str
        ``https://host/dicom-web/studies/1.2/series/3.4/instances/5.6`` or a beginning of it down
        to a study.

    Raises
    ------
    WebAddressError
        If it is none.
    """
    service, _, below = url.partition("/studies/")
    steps = ["studies", *below.rstrip("/").split("/")]
    uids = steps[1::2]
    is_good = tuple(steps[::2]) == _BELOW[: len(uids)] and all(map(is_uid, uids))
    if not is_good or len(steps) % 2 or not _SERVICE.fullmatch(service):
        raise WebAddressError(
            f"{printable(url)} is no address of a study, series or instance; write "
            "https://HOST/PATH/studies/UID/series/UID, without user name, question mark or spaces."
        )
    return Resource(service, *uids)


def parse_service(url: str) -> str:
    """Take the address of a DICOMweb service, without a slash at its end.

    Raises
    ------
    WebAddressError
        If it is none.
    """
    if not _SERVICE.fullmatch(url.rstrip("/")):
        raise WebAddressError(
            f"{printable(url)} is no address of a service; write https://HOST/PATH, without user "
            "name, question mark or spaces."
        )
    return url.rstrip("/")


def printable(url: str) -> str:
    """Write an address for a message: nothing that could be a password, on one line."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        text = f"{parts.scheme}://{host}{parts.path}"
    except ValueError:
        text = "The address"
    return "".join(char if char.isprintable() else "?" for char in text)[:1000]
