"""How sending to destinations and fetching from sources stands."""

from dataclasses import dataclass

from oncofm.pacs.config import PacsConfig
from oncofm.pacs.config_peers import DicomDestination
from oncofm.pacs.database import (
    DROPPED,
    PENDING,
    REFUSED,
    SENT,
    SHADOW,
    STORED,
    Database,
)
from oncofm.pacs.readable import iso
from oncofm.pacs.sources import Sources

DELIVERY_STATES = (PENDING, STORED, SENT, REFUSED, SHADOW, DROPPED)


@dataclass(frozen=True)
class DestinationStatus:
    """How sending to a destination stands.

    Attributes
    ----------
    name, kind, address : str
        Who it is; an address without what comes before an ``@`` in it.
    pending, stored, sent, refused, shadow, dropped : int
        Instances; `stored` are those that the destination is yet to commit to.
    attempts : int
        Most that one of the pending ones had.
    next_try : str
        When the next of them is due; empty if that is now, or there are none.
    answered : str
        When it was tried last; empty if it never was.
    answer, message : str
        Status and sentence of then.
    """

    name: str
    kind: str
    address: str
    pending: int
    stored: int
    sent: int
    refused: int
    shadow: int
    dropped: int
    attempts: int
    next_try: str
    answered: str
    answer: str
    message: str


@dataclass(frozen=True)
class SourceStatus:
    """How fetching from a server stands.

    Attributes
    ----------
    name, address : str
        Who it is.
    seen, pending, fetched, failed : int
        Studies there.
    answered, next_try : str
        When it answered last, and when it is asked next; empty if it never did, or is not asked.
    failures : int
        How often it has failed since.
    message : str
        A sentence about the last failure.
    """

    name: str
    address: str
    seen: int
    pending: int
    fetched: int
    failed: int
    answered: str
    next_try: str
    failures: int
    message: str


def read_destinations(database: Database, config: PacsConfig) -> list[DestinationStatus]:
    """Ask how each destination stands: those of the configuration, then those it had before."""
    known = database.rows("SELECT DISTINCT destination FROM deliveries ORDER BY destination")
    names = dict.fromkeys([*config.destinations, *(name for (name,) in known)])
    return [_destination(database, config, name) for name in names]


def _destination(database: Database, config: PacsConfig, name: str) -> DestinationStatus:
    kind, address = _address(config, name)
    counts = dict(
        database.rows(
            "SELECT state, count(*) FROM deliveries WHERE destination = ? GROUP BY state", name
        )
    )
    ((attempts, due_at),) = database.rows(
        "SELECT coalesce(max(attempts), 0), coalesce(min(due_at), 0) FROM deliveries "
        "WHERE destination = ? AND state = ?",
        *(name, PENDING),
    )
    answers = database.rows(
        "SELECT changed_at, status, message FROM deliveries WHERE destination = ? AND "
        "attempts > 0 AND state IN (?, ?, ?, ?) ORDER BY changed_at DESC LIMIT 1",
        *(name, PENDING, STORED, SENT, REFUSED),
    )
    answered, answer, message = answers[0] if answers else (0.0, "", "")
    return DestinationStatus(
        name=name,
        kind=kind,
        address=address,
        **{one: counts.get(one, 0) for one in DELIVERY_STATES},
        attempts=attempts,
        next_try=iso(due_at),
        answered=iso(answered),
        answer=answer,
        message=message,
    )


def _address(config: PacsConfig, name: str) -> tuple[str, str]:
    destination = config.destinations.get(name)
    if destination is None:
        return "removed", ""
    if isinstance(destination, DicomDestination):
        return "dicom", f"{destination.ae_title} at {destination.host}:{destination.port}"
    return "stow", destination.url.partition("?")[0]


def read_sources(database: Database, config: PacsConfig) -> list[SourceStatus]:
    """Ask how each source stands."""
    if not config.sources:
        return []
    sources = Sources(database)
    states = {name: sources.state(name) for name in config.sources}
    return [
        SourceStatus(
            name=name,
            address=config.sources[name].url,
            **sources.count(name),
            answered=iso(state.polled_at),
            next_try=iso(state.due_at),
            failures=state.failures,
            message=state.message,
        )
        for name, state in states.items()
    ]
