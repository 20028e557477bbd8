"""Storage commitment: with Orthanc, and with peers that answer late, badly, elsewhere or never."""

import itertools
import json
import threading
import time
import urllib.request
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from nodes import PATIENCE_S, TITLE, FakeClock, free_port, make_config, pacs, running
from orthanc import run_orthanc
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from oncofm.pacs.care import requeue
from oncofm.pacs.config_peers import DicomDestination
from oncofm.pacs.database import Delivery
from oncofm.pacs.send_commitment import Question, ask_peer

KEEPER = "KEEPER"
COMMITS = {"commitment": True, "commitment_timeout_s": 100}


class Keeper:
    """A peer that takes reports, and answers questions as a test says.

    Attributes
    ----------
    stored : list of str
        SOP Instance UIDs, as often as they came.
    questions : list of Dataset
        Action information of each question.
    on_question : callable
        Told of the association and the question, before it is taken; gives the status.
    """

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.questions: list[Dataset] = []
        self.on_question = lambda assoc, question: 0
        self.threads: list[threading.Thread] = []

    def store(self, event) -> int:
        self.stored.append(str(event.dataset.SOPInstanceUID))
        return 0

    def ask(self, event) -> tuple[int, None]:
        self.questions.append(event.action_information)
        return self.on_question(event.assoc, event.action_information), None

    def later(self, act, *arguments) -> int:
        thread = threading.Thread(target=act, args=arguments, daemon=True)
        self.threads.append(thread)
        thread.start()
        return 0


def answer(question: Dataset, failed: int | None = None) -> Dataset:
    information = Dataset()
    information.TransactionUID = question.TransactionUID
    items = question.ReferencedSOPSequence
    if failed is None:
        information.ReferencedSOPSequence = items
        return information
    for item in items:
        item.FailureReason = failed
    information.FailedSOPSequence = items
    return information


def report(assoc, information: Dataset) -> int:
    kind = 2 if "FailedSOPSequence" in information else 1
    uids = (StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
    status, _ = assoc.send_n_event_report(information, kind, *uids)
    return status.Status


def report_to(port: int, information: Dataset, *, has_role: bool = True) -> int:
    """Report on an association of the peer's own, as provider."""
    ae = AE(KEEPER)
    ae.add_requested_context(StorageCommitmentPushModel, ExplicitVRLittleEndian)
    roles = [build_role(StorageCommitmentPushModel, scp_role=True)] if has_role else []
    assoc = ae.associate("127.0.0.1", port, ae_title=TITLE, ext_neg=roles)
    assert assoc.is_established
    if has_role:
        (context,) = assoc.accepted_contexts
        assert (context.as_scu, context.as_scp) == (False, True)
    try:
        return report(assoc, information)
    finally:
        assoc.release()


@contextmanager
def keeping(port: int, supports_commitment: bool = True):
    keeper = Keeper()
    ae = AE(KEEPER)
    ae.add_supported_context(Comprehensive3DSRStorage)
    if supports_commitment:
        ae.add_supported_context(StorageCommitmentPushModel)
    handlers = [(evt.EVT_C_STORE, keeper.store), (evt.EVT_N_ACTION, keeper.ask)]
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    try:
        yield keeper
    finally:
        for thread in keeper.threads:
            thread.join(PATIENCE_S)
        server.shutdown()


@pytest.fixture
def config(tmp_path):
    return make_config(
        tmp_path,
        {"PACS": pacs(free_port(), KEEPER) | COMMITS},
        node={"peers": ["STORESCU", KEEPER]},
        sending={"attempts": 3, "backoff_s": 10, "max_backoff_s": 150},
    )


@pytest.fixture
def keeper(config):
    with keeping(config.destinations["PACS"].port) as keeper:
        yield keeper


@pytest.fixture
def node(config):
    with running(config) as node:
        yield node


@pytest.fixture
def brief(monkeypatch):
    """Associations are not kept for an answer, though a slow peer has time for everything else."""
    passing = SimpleNamespace(monotonic=itertools.count(0, 1e6).__next__, sleep=time.sleep)
    monkeypatch.setattr("oncofm.pacs.send_commitment.time", passing)


def run(node, study) -> None:
    node.push([*study.ct_files, study.seg_file])
    node.indexed(25)
    node.clock.now += 31


def delivery(node) -> Delivery:
    node.wait(lambda: node.node.database.deliveries("1"))
    (one,) = node.node.database.deliveries("1")
    return one


def states(node) -> list[str | None]:
    return [json.loads(line).get("state") for line in node.audit.splitlines()]


def is_settled(node) -> bool:
    return node.node.database.rows("SELECT * FROM commitments") == []


def test_answer_on_the_same_association(keeper, node, study):
    keeper.on_question = lambda assoc, question: keeper.later(report, assoc, answer(question))
    run(node, study)
    node.wait_for("done")
    assert len(keeper.stored) == 1
    (question,) = keeper.questions
    (item,) = question.ReferencedSOPSequence
    assert item.ReferencedSOPInstanceUID == keeper.stored[0]
    assert item.ReferencedSOPClassUID == Comprehensive3DSRStorage
    assert delivery(node).state == "sent"
    assert is_settled(node)


@pytest.mark.parametrize("has_role", [True, False])
def test_answer_on_another_association(keeper, node, study, has_role):
    run(node, study)
    node.wait(lambda: keeper.questions)
    assert node.study.state == "sending"
    assert delivery(node).state == "stored"
    information = answer(keeper.questions[0])
    assert report_to(node.port, information, has_role=has_role) == 0
    node.wait_for("done")
    assert report_to(node.port, information) == 0  # once more, which changes nothing
    assert '"commitment_unknown"' in node.audit


def test_answer_after_a_restart(config, keeper, study):
    with running(config) as node:
        run(node, study)
        node.wait(lambda: keeper.questions)
    clock = FakeClock()
    with running(config, clock) as node:
        assert node.study.state == "sending"
        assert report_to(node.port, answer(keeper.questions[0])) == 0
        node.wait_for("done")
    assert len(keeper.stored) == 1


def test_late_answer_and_questions_with_longer_and_longer_pauses(keeper, node, study, brief):
    run(node, study)
    for n, wait_s in enumerate((101, 151), start=1):
        node.wait(lambda n=n: len(keeper.questions) == n)
        node.wait(lambda n=n: delivery(node).asks == n)
        assert node.clock.now < delivery(node).due_at <= node.clock.now + wait_s
        node.clock.now += wait_s
    node.wait(lambda: len(keeper.questions) == 3)
    assert len({str(one.TransactionUID) for one in keeper.questions}) == 3
    if node.study.state == "sending":
        report_to(node.port, answer(keeper.questions[0]))  # to the first
    assert len(keeper.stored) == 1


def test_no_answer_at_all(keeper, node, study, brief):
    run(node, study)
    for n in (1, 2, 3):
        node.wait(lambda n=n: delivery(node).asks == n)
        node.clock.now += 151
    node.wait_for("quarantined")
    message = f"PACS refused {delivery(node).sop_uid}: It never committed to instance "
    assert node.study.message.startswith(message)
    assert len(keeper.stored) == 1


def test_failures_are_sent_again_then_quarantined(keeper, node, study):
    keeper.on_question = lambda assoc, question: keeper.later(
        report, assoc, answer(question, 0x0112)
    )
    run(node, study)
    for n in (1, 2, 3):
        node.wait(lambda n=n: delivery(node).failures == n)
        node.clock.now += 151
    node.wait_for("quarantined")
    assert "does not commit to instance" in node.study.message
    assert "(failure reason 0112)" in node.study.message
    assert delivery(node).status == "0112"
    assert len(keeper.stored) == 3
    assert len(set(keeper.stored)) == 1
    keeper.on_question = lambda assoc, question: keeper.later(report, assoc, answer(question))
    assert requeue(node.node.database, node.study.study_uid, node.clock.now) == "sending"
    node.wait_for("done")
    assert is_settled(node)


def test_a_peer_that_does_not_commit_at_all(config, study):
    with keeping(config.destinations["PACS"].port, supports_commitment=False):
        with running(config) as node:
            run(node, study)
            node.wait_for("quarantined")
            assert "takes nothing of class 1.2.840.10008.1.20.1; configure" in node.study.message
        # An operator who takes the wish back has nothing more to do.
        there = config.destinations["PACS"].model_copy(update={"commitment": False})
        plain = config.model_copy(update={"destinations": {"PACS": there}})
        with running(plain) as node:
            requeue(node.node.database, node.study.study_uid, node.clock.now)
            node.wait_for("done")


def test_a_wish_that_is_taken_back(config, keeper, study):
    with running(config) as node:
        run(node, study)
        node.wait(lambda: delivery(node).state == "stored")
    there = config.destinations["PACS"].model_copy(update={"commitment": False})
    with running(config.model_copy(update={"destinations": {"PACS": there}})) as node:
        node.wait_for("done")


def test_garbage_answers(keeper, node, study):
    run(node, study)
    node.wait(lambda: keeper.questions)
    nothing = Dataset()
    nothing.TransactionUID = "1.2.3"
    assert report_to(node.port, nothing) == 0
    nothing = Dataset()
    nothing.PatientName = "Kanarienvogel"
    assert report_to(node.port, nothing) == 0x0110
    long = answer(keeper.questions[0])
    long.TextValue = "x" * 2_000_000
    assert report_to(node.port, long) == 0x0110
    odd = answer(keeper.questions[0])
    odd.ReferencedSOPSequence = [Dataset()]
    assert report_to(node.port, odd) == 0x0110
    assert delivery(node).state == "stored"
    assert "Kanarienvogel" not in node.audit
    assert node.node.is_alive


def test_an_answer_that_cannot_be_noted(keeper, node, study, monkeypatch):
    run(node, study)
    node.wait(lambda: keeper.questions)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(node.node.commitments, "_settle", fail)
    assert report_to(node.port, answer(keeper.questions[0])) == 0x0213
    assert '"commitment_lost"' in node.audit
    monkeypatch.undo()
    assert report_to(node.port, answer(keeper.questions[0])) == 0
    node.wait_for("done")


@pytest.mark.parametrize(
    ("status", "state"), [(0x0110, "pending"), (0x0213, "pending"), (0x0122, "refused")]
)
def test_questions_that_are_not_taken(status, state):
    port = free_port()
    one = Delivery("PACS", "1.2.3", "1.2", "key", 1, "", "stored", 0, 0.0, "", "", 0.0)
    there = DicomDestination(**(pacs(port, KEEPER) | COMMITS))
    with keeping(port) as keeper:
        keeper.on_question = lambda assoc, question: status
        ((_, verdict),) = ask_peer(there, [Question("1.2", (one,))], keeper.ask, lambda: True)
    assert (verdict.state, verdict.status) == (state, f"{status:04X}")
    assert "does not take the question" in verdict.message
    ((_, verdict),) = ask_peer(there, [Question("1.2", (one,))], keeper.ask, lambda: True)
    assert verdict.state == "pending"
    assert "does not answer" in verdict.message


def test_a_peer_that_hangs_up_or_says_nothing(hasty):
    port = free_port()
    one = Delivery("PACS", "1.2.3", "1.2", "key", 1, "", "stored", 0, 0.0, "", "", 0.0)
    there = DicomDestination(**(pacs(port, KEEPER) | COMMITS))
    questions = [Question("1.2", (one,)), Question("1.3", (one,))]
    release = threading.Event()
    with keeping(port) as keeper:
        keeper.on_question = lambda assoc, question: release.wait(PATIENCE_S) and 0
        verdicts = [verdict for _, verdict in ask_peer(there, questions, keeper.ask, lambda: True)]
        release.set()
    assert [verdict.state for verdict in verdicts] == ["pending", "pending"]
    assert "did not answer in time" in verdicts[0].message
    assert "ended the association" in verdicts[1].message


def test_orthanc_commits(tmp_path, study):
    node_port = free_port()
    modalities = {"node": {"AET": TITLE, "Host": "127.0.0.1", "Port": node_port}}
    modalities["node"]["AllowStorageCommitment"] = True
    with run_orthanc(tmp_path / "orthanc", DicomModalities=modalities) as orthanc:
        config = make_config(
            tmp_path,
            {"PACS": pacs(orthanc.dicom_port) | {"commitment": True}},
            node={"peers": ["STORESCU", "ORTHANC"], "port": node_port},
        )
        with running(config) as node:
            run(node, study)
            node.wait_for("done")
            assert delivery(node).state == "sent"
            node.wait(lambda: sorted(states(node)[-3:]) == ["done", "sent", "stored"])
            # What was deleted there is missed, and sent again.
            (first,) = orthanc.instances
            url = f"{orthanc.http}/instances/{first}"
            request = urllib.request.Request(url, method="DELETE")
            urllib.request.urlopen(request, timeout=PATIENCE_S).close()
            with node.node.database.transaction():
                node.node.database.execute("UPDATE studies SET state = 'sending'")
                node.node.database.execute("UPDATE deliveries SET state = 'stored'")
            node.wait(lambda: delivery(node).failures == 1)
            node.clock.now += 1
            node.wait_for("done")
            assert orthanc.instances == [first]
