"""A node with studies in every state, and with what hostile peers said."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from nodes import START, FakeClock, make_config, pacs

from oncofm.dicomweb.search import StudyFound
from oncofm.pacs.audit import AUDIT_FILE, AuditLog
from oncofm.pacs.config import PacsConfig
from oncofm.pacs.database import STATES, Database, open_database
from oncofm.pacs.monitor import Monitor
from oncofm.pacs.objects import ObjectFacts, digest
from oncofm.pacs.sources import Sources
from oncofm.pacs.spool import Spool

CANARY = "Kanarienvogel"
HOSTILE = "<script>document.title = 'taken'</script><img src=x onerror=alert(1)>"
LATER = START + 1e6
RULES = [
    {
        "name": "lung",
        "match": {"modality": ["CT"], "labels": ["*lesion*", "GTV*"]},
        "quiet_s": 60,
        "destinations": ["PACS", "ARCHIVE"],
    },
    {"name": "all", "quiet_s": 0.5, "force_s": 7200, "destinations": [], "shadow": True},
]
THERE = {
    "PACS": pacs(104, "PACS"),
    "ARCHIVE": {"type": "stow", "url": "https://archive.example/dicom-web?key=hidden"},
}


@contextmanager
def filled_node(folder: Path) -> Iterator[SimpleNamespace]:
    """What a status page asks of a node, which does nothing: its studies stay as they are."""
    web = {"type": "qido", "url": "https://archive.example/dicom-web", "every_s": 60}
    config: PacsConfig = make_config(folder, THERE, rules=RULES, sources={"WEB": web})
    with open_database(config.node.folder) as database:
        fill(database)
        sources = Sources(database)
        sources.see("WEB", [StudyFound(uid(200), CANARY, 2, 25)], START)
        sources.note_answer("WEB", START - 60, 60)
        sources.note_failure("WEB", START, 60, f"It does not answer. {HOSTILE}")
        audit = AuditLog(config.node.folder / AUDIT_FILE)
        for _ in range(3):
            audit("association_refused", calling="<script>", called="<b>X</b>", address="10.1.2.3")
        audit("object_refused", sop="1.2", calling="CT1", status="C000", message=HOSTILE)
        audit("study", study="1.2", state="done")
        node = SimpleNamespace(
            config=config,
            database=database,
            sources=sources,
            clock=FakeClock(),
            spool=Spool(config.node.folder / "spool", 1),
            runner=SimpleNamespace(is_ready=True),
            is_alive=True,
            can_note=True,
            is_ready=True,
            receiver=SimpleNamespace(
                counts={"stored": 28, "refused": 1, "own": 0, "associations_refused": 3},
                n_bytes=12_345_678_901,
            ),
            worker=SimpleNamespace(n_jobs=22, seconds=12.5),
            queue=["a", "b"],
        )
        node.monitor = Monitor(node)  # type: ignore[arg-type]
        yield node


def uid(number: int) -> str:
    return f"2.25.98765432109876543210987654321098{number:03d}"


def fill(database: Database, now: float = START) -> dict[str, int]:
    """Put studies in, and what destinations said; gives state -> number of studies."""
    counts = {state: number for number, state in enumerate(STATES, 1)}
    number = 0
    for state, count in counts.items():
        for _ in range(count):
            number += 1
            add_study(database, number, state, now)
    for one, destination in enumerate(("PACS", "ARCHIVE")):
        deliver(database, 1, destination, 10 + one, now, "sent", "0000")
    deliver(database, 20, "PACS", 99, now, "pending", "A700", "The peer could not store it.")
    deliver(database, 28, "ARCHIVE", 100, now, "refused", "HTTP 415", HOSTILE)
    return counts


def add_study(database: Database, number: int, state: str, now: float) -> None:
    """Take a study from its first object to a state, as the node does."""
    key = digest(uid(number))
    facts = ObjectFacts(uid(number), "1.3", f"{uid(number)}.1", "1.2", study_description=CANARY)
    database.execute(
        "INSERT INTO studies (key, study_uid, state, rule, fresh, due_at, first_at, last_at, "
        "changed_at) VALUES (?, ?, 'received', 'all', 0, ?, ?, ?, ?)",
        *(key, uid(number), LATER, now, now, now),
    )
    database.execute(
        "INSERT INTO objects (study_key, sop_uid, file, n_bytes, calling, called, facts, present, "
        "received_at) VALUES (?, ?, ?, 1000, 'CT1', 'ONCOFM', ?, 0, ?)",
        *(key, facts.sop_uid, f"{key}/none.dcm", facts.to_json(), now - 30),
    )
    if state in ("done", "quarantined", "sending"):
        database.update(key, now - 40, state="running", attempts=1)
    reason = {"quarantined": "no_report", "queued": "time_limit", "waiting": "incomplete"}
    said = {"quarantined": HOSTILE, "queued": "The job took longer than 1800 s."}
    values = {"reason": reason.get(state, ""), "message": said.get(state, "")}
    if state != "received":
        database.update(key, now - 20 + number / 10, state=state, **values)


def deliver(
    database: Database,
    number: int,
    destination: str,
    sop: int,
    now: float,
    state: str,
    status: str,
    message: str = "",
) -> None:
    """Have a destination answer once."""
    database.execute(
        "INSERT INTO deliveries (destination, sop_uid, sop_class, study_key, revision, file, "
        "state, changed_at) VALUES (?, ?, '1.2', ?, 1, '', 'pending', ?)",
        *(destination, uid(sop), digest(uid(number)), now - 20),
    )
    database.execute(
        "UPDATE deliveries SET state = ?, status = ?, message = ?, attempts = attempts + 1, "
        "due_at = ?, changed_at = ? WHERE destination = ? AND sop_uid = ?",
        *(state, status, message, LATER, now - 10, destination, uid(sop)),
    )
