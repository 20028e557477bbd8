"""What a node counts, in the text format of Prometheus; no UIDs, no names of patients."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import oncofm
from oncofm.pacs.database import SENT
from oncofm.pacs.status_peers import DELIVERY_STATES

if TYPE_CHECKING:
    from oncofm.pacs.node import Node

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "oncofm_pacs"

Sample = tuple[dict[str, str], float]
"""Labels and value."""


def metrics(node: "Node", started_at: float) -> str:
    """Write the metrics of a node that runs.

    Parameters
    ----------
    node : Node
        Which.
    started_at : float
        When its process started, in seconds since 1970.
    """
    database, counts = node.database, node.receiver.counts
    names = list(node.config.destinations)
    ends = {end: n for end, n in counts.items() if end != "associations_refused"}
    families = (
        _one("build_info", "gauge", "The software.", 1.0, version=oncofm.__version__),
        _one("start_time_seconds", "gauge", "When the process started.", started_at),
        _one("ready", "gauge", "1 if objects are taken and jobs run.", float(node.is_ready)),
        _many("studies", "gauge", "Studies by state.", "state", database.counts()),
        _many("objects_total", "counter", "Objects that were sent here, by end.", "end", ends),
        _one("received_bytes_total", "counter", "Bytes of stored objects.", node.receiver.n_bytes),
        _one(
            "associations_refused_total",
            "counter",
            "Associations that were refused.",
            counts["associations_refused"],
        ),
        _family("deliveries", "gauge", "Instances by state.", _deliveries(node, names)),
        _many(
            "last_delivery_timestamp_seconds",
            "gauge",
            "When an instance was taken last; 0 if none was.",
            "destination",
            _last_deliveries(node, names),
        ),
        _family("fetches", "gauge", "Studies on sources by state.", _fetches(node)),
        _many(
            "last_poll_timestamp_seconds",
            "gauge",
            "When a source answered last; 0 if it never did.",
            "source",
            {name: node.sources.state(name).polled_at for name in node.config.sources},
        ),
        _one("queued_jobs", "gauge", "Jobs in the queue.", len(node.queue)),
        _one("jobs_total", "counter", "Jobs that ended, however.", node.worker.n_jobs),
        _one("job_seconds_total", "counter", "Time in jobs.", node.worker.seconds),
        _one("disk_free_bytes", "gauge", "Free on the disk.", node.spool.free_bytes),
        _one(
            "disk_watermark_bytes",
            "gauge",
            "With less free nothing is taken.",
            node.config.node.min_free_mb * 1e6,
        ),
    )
    return "".join(families)


def _one(name: str, kind: str, meaning: str, value: float, **labels: str) -> str:
    return _family(name, kind, meaning, [(labels, value)])


def _many(name: str, kind: str, meaning: str, label: str, values: Mapping[str, float]) -> str:
    return _family(name, kind, meaning, [({label: key}, value) for key, value in values.items()])


def _family(name: str, kind: str, meaning: str, samples: Iterable[Sample]) -> str:
    name = f"{_PREFIX}_{name}"
    lines = [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        inside = ",".join(f'{key}="{text}"' for key, text in labels.items())
        lines.append(f"{name}{f'{{{inside}}}' if inside else ''} {_digits(value)}")
    return "\n".join(lines) + "\n"


def _digits(value: float) -> str:
    """Write all digits: a rounded counter would seem to stand still."""
    return str(int(value)) if value == int(value) else repr(float(value))


def _deliveries(node: "Node", names: list[str]) -> list[Sample]:
    """Count instances by destination and state; 0 where there are none, so that rates work."""
    rows = node.database.rows(
        "SELECT destination, state, count(*) FROM deliveries GROUP BY destination, state"
    )
    found = {(name, state): n for name, state, n in rows}
    return [
        ({"destination": name, "state": state}, found.get((name, state), 0))
        for name in names
        for state in DELIVERY_STATES
    ]


def _fetches(node: "Node") -> list[Sample]:
    return [
        ({"source": name, "state": state}, n)
        for name in node.config.sources
        for state, n in node.sources.count(name).items()
    ]


def _last_deliveries(node: "Node", names: list[str]) -> dict[str, float]:
    """When each destination took an instance last, in seconds since 1970."""
    return {
        name: node.database.rows(
            "SELECT coalesce(max(changed_at), 0) FROM deliveries WHERE destination = ? AND "
            "state = ?",
            *(name, SENT),
        )[0][0]
        for name in names
    }
