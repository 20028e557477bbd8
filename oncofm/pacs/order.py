"""Studies that an operator wants from a server; the node that serves the folder fetches them."""

import time

from oncofm.dicomweb.address import is_uid
from oncofm.errors import SettingInvalidError
from oncofm.pacs.config import PacsConfig
from oncofm.pacs.database import Database
from oncofm.pacs.lock import is_served
from oncofm.pacs.sources import PENDING, Fetch, Sources

_POLL_S = 0.2


def choose_source(config: PacsConfig, name: str) -> str:
    """Take the source of a name or, without one, the only one that there is.

    Raises
    ------
    SettingInvalidError
        If there is no such source, or several.
    """
    if name in config.sources:
        return name
    if not config.sources:
        raise SettingInvalidError("The configuration has no sources; add one to fetch from.")
    if name or len(config.sources) > 1:
        raise SettingInvalidError(
            f"Name the source to fetch from with --from: {', '.join(config.sources)}."
        )
    return next(iter(config.sources))


def order_study(database: Database, name: str, study_uid: str, now: float) -> None:
    """Have the node fetch a study, all of it, also what it has already.

    Raises
    ------
    SettingInvalidError
        If the study's UID is none.
    """
    if not is_uid(study_uid):
        raise SettingInvalidError("--study is no Study Instance UID; give one.")
    Sources(database).order(name, study_uid, now)


def await_study(database: Database, config: PacsConfig, name: str, study_uid: str) -> Fetch:
    """Wait until a study that was ordered has come, or failed once, or nobody fetches it."""
    sources = Sources(database)
    while True:
        (fetch,) = sources.fetches("source = ? AND study_uid = ?", name, study_uid)
        if fetch.state != PENDING or fetch.message or not is_served(config.node.folder):
            return fetch
        time.sleep(_POLL_S)
