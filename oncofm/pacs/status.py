"""How a node stands: what its status page, ``/status.json`` and `oncofm pacs status` say.

All of it is read from the node's folder, so that any process can say it. UIDs, AE titles, codes and
sentences of ours; no free text of a study.
"""

import shutil
from dataclasses import dataclass

import oncofm
from oncofm.pacs.config import PacsConfig, Rule
from oncofm.pacs.database import QUARANTINED, Database
from oncofm.pacs.history import Throughput, throughput
from oncofm.pacs.lock import is_served
from oncofm.pacs.readable import iso
from oncofm.pacs.status_peers import (
    DestinationStatus,
    SourceStatus,
    read_destinations,
    read_sources,
)
from oncofm.pacs.status_troubles import Trouble, read_troubles

_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3600.0, 86_400.0
_MOST_QUARANTINED = 50


@dataclass(frozen=True)
class RuleStatus:
    """A rule in force; `match` is in the words of the configuration."""

    name: str
    match: dict[str, list[str]]
    require: list[str]
    quiet_s: float
    force_s: float
    destinations: list[str]
    shadow: bool


@dataclass(frozen=True)
class Quarantined:
    """A study that somebody must look at."""

    time: str
    study_uid: str
    rule: str
    reason: str
    message: str


@dataclass(frozen=True)
class Disk:
    """The disk of the node's folder; below `min_free_bytes` nothing is taken."""

    total_bytes: int
    free_bytes: int
    min_free_bytes: int


@dataclass(frozen=True)
class NodeStatus:
    """How a node stands.

    Attributes
    ----------
    time : str
        When it was asked; all times are UTC, ISO 8601.
    version : str
        Of this software.
    ae_titles, port
        Where it listens.
    is_running : bool
        Whether a process serves the folder.
    studies : dict of str to int
        By state, all seven.
    throughput : dict of str to Throughput
        Of the last ``minute``, ``hour`` and ``day``.
    disk, destinations, sources, rules, quarantined, troubles
        The latest first; of the last 7 days and no more than a page holds.
    """

    time: str
    version: str
    ae_titles: list[str]
    port: int
    is_running: bool
    studies: dict[str, int]
    throughput: dict[str, Throughput]
    disk: Disk
    destinations: list[DestinationStatus]
    sources: list[SourceStatus]
    rules: list[RuleStatus]
    quarantined: list[Quarantined]
    troubles: list[Trouble]


def read_status(database: Database, config: PacsConfig, now: float) -> NodeStatus:
    """Ask how a node stands.

    Parameters
    ----------
    database : Database
        The node's.
    config : PacsConfig
        Its configuration.
    now : float
        Seconds since 1970.
    """
    folder = config.node.folder
    usage = shutil.disk_usage(folder)
    return NodeStatus(
        time=iso(now),
        version=oncofm.__version__,
        ae_titles=list(config.node.ae_titles),
        port=config.node.port,
        is_running=is_served(folder),
        studies=database.counts(),
        throughput={
            "minute": throughput(database, now - _MINUTE_S),
            "hour": throughput(database, now - _HOUR_S),
            "day": throughput(database, now - _DAY_S),
        },
        disk=Disk(usage.total, usage.free, int(config.node.min_free_mb * 1e6)),
        destinations=read_destinations(database, config),
        sources=read_sources(database, config),
        rules=[_rule(rule) for rule in config.rules],
        quarantined=_quarantined(database),
        troubles=read_troubles(database, folder, now),
    )


def _rule(rule: Rule) -> RuleStatus:
    match = {name: list(values) for name, values in rule.match.model_dump().items() if values}
    return RuleStatus(
        rule.name,
        match,
        list(rule.require),
        rule.quiet_s,
        rule.force_s,
        list(rule.destinations),
        rule.shadow,
    )


def _quarantined(database: Database) -> list[Quarantined]:
    studies = database.studies("state = ?", QUARANTINED)
    latest = sorted(studies, key=lambda study: study.changed_at, reverse=True)
    return [
        Quarantined(iso(one.changed_at), one.study_uid, one.rule, one.reason, one.message)
        for one in latest[:_MOST_QUARANTINED]
    ]
