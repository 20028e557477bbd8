"""Studies that the node fetches over DICOMweb, from Orthanc and from a server in bad weather."""

import io
import json
import threading
from pathlib import Path

import pydicom
import pytest
from nodes import (
    PATIENCE_S,
    START,
    TITLE,
    FakeClock,
    RunnerHere,
    change_seg,
    make_config,
    pacs,
    running,
)
from web_server import (
    JSON,
    ROOT,
    SERIES,
    SERIES_PATH,
    STUDY,
    Reply,
    listing,
    multipart,
    run_web_server,
)

from oncofm.errors import SettingInvalidError
from oncofm.pacs.database import open_database
from oncofm.pacs.errors import PacsConfigError
from oncofm.pacs.order import choose_source, order_study
from oncofm.pacs.sources import FAILED, FETCHED, PENDING, SEEN, Sources

STUDIES = f"{ROOT}/studies"


def source(url: str, **keys) -> dict:
    return {"type": "qido", "url": url, "every_s": 60, "last_days": None, **keys}


def config_for(folder: Path, url: str, port: int = 1, **keys):
    return make_config(folder, {"PACS": pacs(port)}, sources={"WEB": source(url, **keys)})


class Watching:
    """A running node that fetches, and what tests ask it."""

    def __init__(self, node):
        self.test, self.node, self.clock = node, node.node, node.clock
        self.sources = node.node.sources
        if node.node.config.sources["WEB"].every_s is not None:
            # Or a test that moves the clock might do so before the first poll.
            node.wait(lambda: self.state.due_at > self.clock.now)

    @property
    def state(self):
        return self.sources.state("WEB")

    @property
    def fetches(self):
        return self.sources.fetches("source = 'WEB'")

    def poll(self, n: int = 1, advance_s: float = 60) -> None:
        """Wait for as many polls, a minute apart, and for what they bring."""
        for _ in range(n):
            self.clock.now += advance_s
            self.test.wait(lambda: self.state.due_at > self.clock.now)
            self.settle()

    def settle(self) -> None:
        """Wait until what is to be fetched has come and is in the books."""
        due = ("state = ? AND due_at <= ?", PENDING, self.clock.now)
        self.test.wait(lambda: self.state.failures or not self.sources.fetches(*due))
        self.test.wait(lambda: not self.node.spool._pending)


# --- a real server ------------------------------------------------------------------------


def reports(orthanc) -> list[pydicom.Dataset]:
    found = []
    for one in orthanc.instances:
        dataset = pydicom.dcmread(io.BytesIO(orthanc.get(f"/instances/{one}/file")[1]))
        if dataset.Modality == "SR":
            found.append(dataset)
    return found


def run_to_the_end(node: Watching, n_revisions: int) -> None:
    """Let the quiet timer run out, the job end and the report be sent."""
    node.settle()
    node.clock.now += 31
    node.test.wait(
        lambda: (
            node.test.study.state == "done"
            and not node.test.study.fresh
            and node.test.study.revision == n_revisions
        )
    )


def test_a_study_is_polled_and_its_report_goes_back(tmp_path, study, orthanc):
    orthanc.store([*study.ct_files, study.seg_file])
    patterns = {"study_description": ["phantom*"], "series_description": ["*CHEST*"]}
    config = config_for(tmp_path, f"{orthanc.http}/dicom-web", orthanc.dicom_port, **patterns)
    n_objects = len(study.ct_files) + 1
    with running(config) as started:
        node = Watching(started)
        node.test.wait(lambda: node.fetches)
        assert [one.state for one in node.fetches] == [SEEN]
        node.poll()
        node.test.indexed(n_objects)
        assert {item.calling for item in node.node.database.objects(node.test.study.key)} == {"WEB"}
        assert {item.called for item in node.node.database.objects(node.test.study.key)} == {TITLE}
        run_to_the_end(node, 1)
        (report,) = reports(orthanc)
        node.test.wait(lambda: not node.test.spooled)

        # The report makes the study grow on the server; nothing comes of that.
        node.poll(4)
        assert [one.state for one in node.fetches] == [FETCHED]
        assert node.test.study.state == "done"
        assert (node.test.study.revision, len(reports(orthanc))) == (1, 1)
        assert node.node.pollers["WEB"].fetcher.counts == {"stored": n_objects, "own": 0}

        # Another segmentation does; the images were deleted, and come again.
        corrected = change_seg(study.seg_file, tmp_path / "late" / "seg.dcm")
        orthanc.store([corrected])
        node.poll(2)
        run_to_the_end(node, 2)
        assert node.node.pollers["WEB"].fetcher.counts["stored"] == 2 * n_objects + 1
        new = next(one for one in reports(orthanc) if one.SOPInstanceUID != report.SOPInstanceUID)
        assert report.StudyInstanceUID == new.StudyInstanceUID

        # What an operator orders comes whole, and is nothing new to the node.
        order_study(node.node.database, "WEB", report.StudyInstanceUID, node.clock.now)
        node.settle()
        assert node.node.pollers["WEB"].fetcher.counts["stored"] == 3 * n_objects + 2
        run_to_the_end(node, 2)
    assert "Phantom" not in started.audit


def test_its_own_report_makes_no_loop(tmp_path, study, orthanc):
    """Even where reports are asked for."""
    orthanc.store([*study.ct_files, study.seg_file])
    keys = {"series": ["CT", "SEG", "SR"], "modality": ["CT", "SR"]}
    url = f"{orthanc.http}/dicom-web"
    with running(config_for(tmp_path / "a", url, orthanc.dicom_port, **keys)) as started:
        node = Watching(started)
        node.poll(1)
        run_to_the_end(node, 1)
        node.poll(4)
        assert node.test.study.revision == 1
    # Another node knows the report by who wrote it.
    with running(config_for(tmp_path / "b", url, orthanc.dicom_port, **keys)) as started:
        node = Watching(started)
        node.poll(1)
        assert node.node.pollers["WEB"].fetcher.counts["own"] == 1
        node.test.indexed(len(study.ct_files) + 1)


def test_what_does_not_fit_is_not_fetched(tmp_path, study, orthanc):
    orthanc.store([*study.ct_files, study.seg_file])
    url = f"{orthanc.http}/dicom-web"
    for number, (keys, states) in enumerate(
        [
            ({"study_description": ["abdomen*"]}, []),
            ({"modality": ["MR", "RTSTRUCT"]}, []),
            ({"last_days": 3}, []),  # the phantom is years old
            ({"station": ["CT99*"]}, [FETCHED]),
            ({"series_description": ["abdomen*"]}, [FETCHED]),
            ({"series": ["PT"]}, [FETCHED]),
        ]
    ):
        with running(config_for(tmp_path / str(number), url, **keys)) as started:
            node = Watching(started)
            node.poll(1)
            assert [one.state for one in node.fetches] == states, keys
            assert node.node.database.studies() == []


# --- bad weather --------------------------------------------------------------------------


def found(*uids: str, n_instances: int = 1) -> bytes:
    items = json.loads(listing(*uids, tag="0020000D"))
    for item in items:
        item["00201206"] = {"vr": "IS", "Value": [1]}
        item["00201208"] = {"vr": "IS", "Value": [n_instances]}
    return json.dumps(items).encode()


class Studies(list):
    """Answers to all searches for studies."""

    def __init__(self, web, *uids: str):
        super().__init__([Reply(found(*uids), JSON)])
        self.web = web
        web.wrong[STUDIES] = self

    def pop(self, _index=0):
        return self[0]

    def grow(self, n_instances: int) -> None:
        self[0] = Reply(found(STUDY, n_instances=n_instances), JSON)

    def fail(self, status: int) -> None:
        self[0] = Reply(status=status)


@pytest.fixture
def web():
    with run_web_server("1.9.1", "1.9.2") as server:
        server.studies = Studies(server, STUDY)
        yield server


def node_for(folder: Path, web, **keys):
    return running(config_for(folder, web.url, modality=["CT"], **keys))


def test_a_server_that_is_down_for_a_while(tmp_path, web):
    web.studies.fail(401)
    with node_for(tmp_path, web) as started:
        node = Watching(started)
        node.test.wait(lambda: node.state.failures == 1)
        assert node.state.due_at == START + 60
        for n_failures, wait_s in ((2, 120), (3, 240), (4, 480)):
            node.clock.now = node.state.due_at
            node.test.wait(lambda n=n_failures: node.state.failures == n)
            assert node.state.due_at == node.clock.now + wait_s
        assert "refuses (HTTP 401): the token is missing or wrong" in node.state.message
        assert '"event": "source_failed", "source": "WEB", "reason": "web_refused"' in started.audit
        web.studies.grow(2)
        node.clock.now = node.state.due_at
        node.test.wait(lambda: node.state.failures == 0 and not node.state.message)
        node.poll(1)
        node.test.indexed(2)


def test_a_study_that_fails_is_tried_again_and_given_up(tmp_path, web):
    with node_for(tmp_path, web) as started:
        node = Watching(started)
        web.wrong[f"{SERIES_PATH}/instances"] = [Reply(status=403) for _ in range(10)]
        node.poll(1)
        node.test.wait(lambda: node.fetches[0].attempts == 1)
        assert "refuses (HTTP 403)" in node.fetches[0].message
        for n_attempts in range(2, 11):
            node.clock.now = max(node.fetches[0].due_at, node.state.due_at)
            node.test.wait(lambda n=n_attempts: node.fetches[0].attempts == n)
        assert node.fetches[0].state == FAILED
        assert node.sources.count("WEB") == {SEEN: 0, PENDING: 0, FETCHED: 0, FAILED: 1}
        assert '"event": "fetch_failed"' in started.audit
        node.poll(2)
        assert node.fetches[0].state == FAILED
        web.studies.grow(3)
        node.poll(2)
        assert node.fetches[0].state == FETCHED
        node.test.indexed(2)


def test_a_study_that_is_still_sent_to_the_server_is_left_alone(tmp_path, web):
    with node_for(tmp_path, web) as started:
        node = Watching(started)
        node.test.wait(lambda: node.fetches)
        for n_instances in (2, 3, 4):
            web.studies.grow(n_instances)
            node.poll(1)
            assert node.fetches[0].state == SEEN
        node.poll(1)
        assert node.fetches[0].state == FETCHED


def test_a_node_that_starts_again_remembers(tmp_path, web):
    config = config_for(tmp_path, web.url, modality=["CT"])
    clock = FakeClock()
    with running(config, clock) as started:
        Watching(started).poll(1)
        started.indexed(2)
    web.requests.clear()
    clock.now += 60
    with running(config, clock) as started:
        Watching(started).poll(2)
    assert {path.partition("?")[0] for path, _ in web.requests} == {STUDIES}


def test_a_node_that_ends_in_the_middle_goes_on(tmp_path, web):
    config = config_for(tmp_path, web.url, modality=["CT"])
    arrived, go_on = threading.Event(), threading.Event()
    body = multipart(*web.files.values())

    def stall(handler):
        arrived.set()
        go_on.wait(PATIENCE_S)
        handler.wfile.write(body[-900:])

    web.wrong[SERIES_PATH] = [Reply(body, n_sent=len(body) - 900, act=stall)]
    clock = FakeClock()
    with running(config, clock) as started:
        node = Watching(started)
        node.test.wait(lambda: node.fetches)
        clock.now += 60
        assert arrived.wait(PATIENCE_S)
        stopping = node.node._stopping
        threading.Thread(target=lambda: stopping.wait(PATIENCE_S) and go_on.set()).start()
    folder = tmp_path / "node" / "fetching"
    (folder / "left.part").write_text("of a node that was killed")
    with running(config, clock) as started:
        node = Watching(started)
        started.indexed(2)
        node.settle()
        assert node.fetches[0].state == FETCHED
        assert not [path for path in folder.rglob("*") if path.is_file()]


def test_a_fetch_that_was_cut_goes_on(tmp_path, web):
    web.wrong[SERIES_PATH] = [Reply(web.files["1.9.1"], "application/dicom")]
    web.wrong[f"{SERIES_PATH}/instances/1.9.2"] = [Reply(status=404)]
    with node_for(tmp_path, web) as started:
        node = Watching(started)
        node.poll(1)
        node.test.wait(lambda: node.fetches[0].attempts == 1)
        node.test.indexed(1)
        web.requests.clear()
        node.poll(1)
        node.test.indexed(2)
        assert web.paths == ["/instances/1.9.2"]


def test_a_full_disk_is_not_the_studys_fault(tmp_path, web):
    with node_for(tmp_path, web) as started:
        node = Watching(started)
        node.test.wait(lambda: node.fetches)
        node.node.spool.is_full = lambda n_more=0: True
        node.poll(1)
        node.test.wait(lambda: node.fetches[0].message)
        assert "below its watermark" in node.fetches[0].message
        assert (node.fetches[0].state, node.fetches[0].attempts) == (PENDING, 0)
        del node.node.spool.is_full
        node.poll(1)
        node.test.indexed(2)
    assert not [path for path in (tmp_path / "node" / "fetching").rglob("*") if path.is_file()]


def test_an_object_without_meta_information(tmp_path, web):
    data = web.files["1.9.1"]
    length = data.index(b"\x02\x00\x00\x00UL")
    web.files = {"1.9.1": data[:length] + data[length + 12 :]}
    with node_for(tmp_path, web) as started:
        node = Watching(started)
        node.poll(1)
        node.test.wait(lambda: node.fetches[0].message)
        assert "1.9.1 has no usable file meta information" in node.fetches[0].message


# --- orders -------------------------------------------------------------------------------


def test_the_command(tmp_path, web, cli):
    command = ["pacs", "fetch", "-c", tmp_path / "pacs.yml", "--study"]
    config = config_for(tmp_path, web.url, every_s=None)
    with running(config) as started:
        node = Watching(started)
        done = cli(*command, STUDY)
        assert (done.code, done.stderr) == (0, "WEB: 2 objects came\n")
        node.test.indexed(2)
        web.wrong[f"{STUDIES}/{STUDY}/series"] = [Reply(status=404)]
        done = cli(*command, STUDY, "--from", "WEB")
        assert done.code == 3
        assert "refuses (HTTP 404)" in done.stderr
    done = cli(*command, STUDY)
    assert (done.code, done.stderr) == (0, "WEB: it comes when the node is started\n")
    with running(config, FakeClock(), RunnerHere()) as started:
        node = Watching(started)
        node.clock.now += 1e9  # the order was given by the clock of the machine
        node.test.wait(lambda: node.fetches[0].state == FETCHED)
        assert node.fetches[0].objects == 2


def test_an_order_in_the_middle_of_a_fetch_is_kept(tmp_path):
    with open_database(tmp_path) as database:
        sources = Sources(database)
        sources.order("WEB", STUDY, 1.0)
        for end in (
            lambda fetch: sources.note_fetched(fetch, 1, 3.0),
            lambda fetch: sources.note_failed(fetch, "No.", 3.0, is_to_blame=True),
        ):
            fetch = sources.next_fetch("WEB", 2.0)
            sources.order("WEB", STUDY, fetch.changed_at + 1)
            end(fetch)
            (again,) = sources.fetches("1")
            assert (again.state, again.ordered, again.attempts) == (PENDING, 1, 0)


def test_orders_that_cannot_be_given(tmp_path):
    config = make_config(tmp_path / "none", {"PACS": pacs(1)})
    with pytest.raises(SettingInvalidError, match="has no sources"):
        choose_source(config, "")
    two = {"A": source("http://a/x"), "B": source("http://b/x")}
    config = make_config(tmp_path / "two", {"PACS": pacs(1)}, sources=two)
    with pytest.raises(SettingInvalidError, match="with --from: A, B"):
        choose_source(config, "")
    with pytest.raises(SettingInvalidError, match="with --from: A, B"):
        choose_source(config, "C")
    assert choose_source(config, "B") == "B"
    with running(config_for(tmp_path / "one", "http://a/x", every_s=None)) as started:
        with pytest.raises(SettingInvalidError, match="is no Study Instance UID"):
            order_study(started.node.database, "WEB", "../x", 0.0)
        assert Sources(started.node.database).fetches("1") == []


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"url": "https://user:geheim@host/x"}, "sources.A.url"),
        ({"url": "https://host/x?token=1"}, "sources.A.url"),
        ({"url": "file:///etc"}, "sources.A.url"),
        ({"every_s": 0}, "sources.A.every_s"),
        ({"last_days": -1}, "sources.A.last_days"),
        ({"modality": []}, "sources.A.modality"),
        ({"modality": ["ct*"]}, "sources.A.modality.0"),
        ({"series": "CT"}, "sources.A.series"),
        ({"type": "wado"}, "sources.A.type"),
        ({"tokens": "x"}, "sources.A.tokens"),
        ({"ae_title": "OTHER"}, "A fetches for OTHER, which the node is not"),
    ],
)
def test_mistakes_in_the_configuration(tmp_path, keys, words):
    content = {"A": source("https://host/x") | keys}
    with pytest.raises(PacsConfigError, match=r"line \d+") as caught:
        make_config(tmp_path, {"PACS": pacs(1)}, sources=content)
    assert words in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_a_name_that_is_no_ae_title(tmp_path):
    with pytest.raises(PacsConfigError, match=r"line \d+: sources"):
        make_config(tmp_path, {"PACS": pacs(1)}, sources={"A" * 17: source("https://host/x")})


def test_a_source_for_one_of_several_titles(tmp_path, web):
    config = make_config(
        tmp_path,
        {"PACS": pacs(1)},
        node={"ae_titles": [TITLE, "OTHER"]},
        sources={"WEB": source(web.url, modality=["CT"], ae_title="OTHER")},
    )
    with running(config) as started:
        Watching(started).poll(1)
        started.indexed(2)
        assert {one.called for one in started.node.database.objects(started.study.key)} == {"OTHER"}
    assert SERIES in str(web.requests)
