"""How a node stands, written for a terminal."""

from oncofm.pacs.readable import size
from oncofm.pacs.status import NodeStatus
from oncofm.pacs.status_peers import DestinationStatus, SourceStatus
from oncofm.pacs.status_troubles import Trouble

_MOST_SHOWN = 5


def describe_status(status: NodeStatus) -> str:
    """Write it for a terminal."""
    disk, hour = status.disk, status.throughput["hour"]
    names = f"{', '.join(status.ae_titles)} (oncofm {status.version}, port {status.port})"
    return "\n".join(
        [
            f"{names} {'runs' if status.is_running else 'does not run'}",
            f"disk: {size(disk.free_bytes)} free, nothing is taken below "
            f"{size(disk.min_free_bytes)}",
            *(f"{state:<12} {count:>8}" for state, count in status.studies.items()),
            f"last hour: objects received {hour.objects}, jobs started {hour.jobs}, "
            f"studies done {hour.studies}, instances delivered {hour.sent}, "
            f"failures {hour.failures}",
            *map(_describe_destination, status.destinations),
            *map(_describe_source, status.sources),
            *map(_describe_trouble, reversed(status.troubles[:_MOST_SHOWN])),
        ]
    )


def _describe_destination(one: DestinationStatus) -> str:
    counts = {"delivered": one.sent, "pending": one.pending, "refused": one.refused}
    counts |= {"to be committed": one.stored, "in shadow": one.shadow, "dropped": one.dropped}
    said = ", ".join(f"{n} {what}" for what, n in counts.items() if n) or "nothing yet"
    again = f"; next try {one.next_try}" if one.next_try else ""
    last = " ".join(filter(None, [one.answer, one.message]))
    answer = f"; last answer: {last}" if last else ""
    return f"{one.name}: {said}{again}{answer}"


def _describe_source(one: SourceStatus) -> str:
    counts = {"seen": one.seen, "pending": one.pending, "fetched": one.fetched}
    said = ", ".join(f"{n} {what}" for what, n in (counts | {"failed": one.failed}).items())
    return f"{one.name}: {said}{f'; {one.message}' if one.message else ''}"


def _describe_trouble(one: Trouble) -> str:
    words = (one.time, one.event, one.peer, one.study_uid, one.reason, one.message)
    return "  ".join(filter(None, words))
