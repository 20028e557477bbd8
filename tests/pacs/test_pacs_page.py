"""The status page: as HTML, over HTTP, and in a browser."""

import json
import re
import subprocess
import urllib.error
import urllib.request
from html import escape

import numpy as np
import pytest
from filled import CANARY, HOSTILE, filled_node, uid
from nodes import START
from PIL import Image
from results.pages import Node, parse
from tools import require_tool
from typer.testing import CliRunner

from oncofm.cli.pacs import app
from oncofm.pacs.errors import NodeError
from oncofm.pacs.monitor import Answer, serve_status
from oncofm.results.manifest import RESEARCH_USE

ICON = '<link rel="icon" href="data:,">'


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with filled_node(tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest.fixture(scope="module")
def url(shared):
    with serve_status("127.0.0.1", 0, shared.monitor) as port:
        yield f"http://127.0.0.1:{port}/"


def get(url: str, method: str = "GET") -> tuple[dict[str, str], str]:
    with urllib.request.urlopen(urllib.request.Request(url, method=method)) as answer:
        return dict(answer.headers), answer.read().decode()


@pytest.fixture(scope="module")
def page(url) -> Node:
    return parse(get(url)[1].replace(ICON, ""))


def rows(page: Node, section: str) -> list[list[str]]:
    body = page.only(id=section).only("tbody")
    return [[cell.text for cell in row.every("td")] for row in body.every("tr")]


# --- what it says -------------------------------------------------------------------------


def test_states(page):
    states = ("received", "waiting", "queued", "running", "sending", "done", "quarantined")
    found = {state: page.only(id=f"state-{state}").only("strong").text for state in states}
    assert found == {state: str(number) for number, state in enumerate(states, 1)}
    assert RESEARCH_USE in page.only("header").text
    assert page.only("title").text == "(7) ONCOFM - oncofm"


def test_what_needs_attention(page):
    latest = rows(page, "attention")[0]
    assert latest == ["2027-01-15 07:59:42", uid(28), "all", f"no_report {HOSTILE}"]
    assert len(rows(page, "attention")) == 7


def test_errors(page):
    found = rows(page, "errors")
    times = [row[0] for row in found]
    assert times == sorted(times, reverse=True)
    assert [
        "2027-01-15 07:59:50",
        "deliveryPACS",
        uid(20),
        "A700 The peer could not store it.",
    ] in (found)
    (stranger,) = [row for row in found if row[1].startswith("association_refused")]
    assert stranger[1] == "association_refused3 times"
    assert "calling <script>, called <b>X</b>, address 10.1.2.3" in stranger[3]
    (refused,) = [row for row in found if row[1] == "object_refused"]
    assert refused[3] == f"C000 {HOSTILE} (calling CT1)"


def test_destinations(page):
    by_name = {row[0].split()[0]: row for row in rows(page, "destinations")}
    assert by_name["PACSdicom"][:4] == [
        "PACSdicom PACS at 127.0.0.1:104",
        "1",
        "1tried once, next at 2027-01-26 21:46:40",
        "0",
    ]
    assert by_name["PACSdicom"][4].endswith("A700 The peer could not store it.")
    assert by_name["ARCHIVEstow"][0] == "ARCHIVEstow https://archive.example/dicom-web"
    assert by_name["ARCHIVEstow"][3] == "1"


def test_sources(page):
    assert rows(page, "sources") == [
        [
            *("WEBhttps://archive.example/dicom-web", "01 more seen", "0", "0"),
            *("2027-01-15 07:59:00", f"1It does not answer. {HOSTILE}"),
        ]
    ]


def test_throughput_disk_and_rules(page):
    assert ["Objects received", "28", "28", "28"] in rows(page, "throughput")
    assert ["Jobs started", "22", "22", "22"] in rows(page, "throughput")
    assert ["Received", "28 kB", "28 kB", "28 kB"] in rows(page, "throughput")
    assert "the watermark is 1 MB" in page.only(id="disk").text
    first, second = rows(page, "rules")
    assert first[1:3] == ["modality CTlabels *lesion*, GTV*", "CT, SEG|RTSTRUCT"]
    assert first[3:] == ["1 min; forced after 24 h", "PACS, ARCHIVE"]
    assert second[:2] == ["allshadow: nothing is sent", "every study"]
    assert second[3:] == ["0.5 s; forced after 2 h", "none"]


def test_what_hostile_peers_say_stays_text(page):
    assert [node["src"] for node in page.every("img")] == []
    (script,) = page.every("script")
    assert script.text.strip().startswith('"use strict"')
    assert list(page.every("b")) == []


def test_nobody_is_named(url):
    for path in ("", "status.json", "metrics"):
        assert CANARY.casefold() not in get(url + path)[1].casefold()


def test_json_is_what_the_command_says(url, shared):
    headers, text = get(f"{url}status.json")
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    served = json.loads(text)
    config = str(shared.config.node.folder.parent / "pacs.yml")
    said = json.loads(CliRunner().invoke(app, ["status", "--config", config, "--json"]).output)
    assert served.pop("process") == {
        "started": "2027-01-15T08:00:00+00:00",
        "is_ready": True,
        "problems": [],
    }
    for changing in ("time", "disk"):
        assert served.pop(changing) != said.pop(changing) or changing == "disk"
    assert served == said
    assert said["is_running"] is False


def test_nothing_yet(tmp_path):
    with filled_node(tmp_path) as node:
        for table in ("studies", "history", "deliveries", "objects"):
            node.database.execute(f"DELETE FROM {table}")
        (node.config.node.folder / "audit.jsonl").write_text("")
        page = parse(node.monitor.answer("/").text.replace(ICON, ""))
        assert page.only(id="attention").only("p").text == "Nothing is in quarantine."
        assert page.only(id="errors").only("p").text == "Nothing went wrong in the last 7 days."
        assert rows(page, "destinations")[0][4] == "not tried yet"
        assert page.only("title").text == "ONCOFM - oncofm"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"is_alive": False}, "A part of the node has ended; restart it."),
        ({"runner": None}, "The model is not loaded (yet); the last errors below say why."),
        (
            {"can_note": False},
            "The database cannot be written, and nothing is taken; free space.",
        ),
        ({"spool": 1e18}, "The disk is below its watermark, and nothing is taken; free space."),
    ],
)
def test_why_it_is_not_ready(tmp_path, change, sentence):
    with filled_node(tmp_path) as node:
        node.is_ready = False
        node.is_alive, node.can_note = "is_alive" not in change, "can_note" not in change
        node.runner.is_ready = "runner" not in change
        node.spool._min_free_bytes = change.get("spool", 1)
        page = parse(node.monitor.answer("/").text.replace(ICON, ""))
        assert page.only(id="state").only("p").text == sentence
        assert json.loads(node.monitor.answer("/status.json").text)["process"]["problems"] == [
            sentence
        ]


# --- HTTP ---------------------------------------------------------------------------------


def test_headers(url):
    headers, text = get(url)
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; base-uri 'none'; form-action 'none'; frame-anc")
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Server"] == "oncofm"
    without_script = text.replace(ICON, "")
    assert not re.search(r"(?:src|href|@import|url\()\s*=?\s*[\"']?https?:", without_script)
    head, nothing = get(url, "HEAD")
    assert (head["Content-Type"], nothing) == (headers["Content-Type"], "")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "<script>"])
def test_other_methods(url, method):
    with pytest.raises(urllib.error.HTTPError, match="501"):
        get(url, method)


def test_other_paths(url):
    for path in ("else", "../etc/passwd", "%2e%2e/", "<script>", "index.html"):
        with pytest.raises(urllib.error.HTTPError, match="404") as error:
            get(url + path)
        assert error.value.read() == b"there are /, /status.json, /healthz, /readyz and /metrics\n"


def get_as(url: str, host: str) -> int:
    request = urllib.request.Request(url, headers={"Host": host})
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return error.code


def test_pages_of_elsewhere_lead_nowhere(url, shared):
    port = url.rstrip("/").rpartition(":")[2]
    for host in ("127.0.0.1", "localhost", "[::1]", f"localhost:{port}", f"[::1]:{port}"):
        assert get_as(url, host) == 200
    for host in ("rebound.example", "127.0.0.1.example:9112", "localhost:x", "[", "::1", ""):
        assert get_as(url, host) == 421
    with serve_status("0.0.0.0", 0, shared.monitor) as port:
        assert get_as(f"http://127.0.0.1:{port}/", "node.hospital.example") == 200


def test_address_that_is_not_here(shared):
    with (
        pytest.raises(NodeError, match=r"Port 9112 of 192\.0\.2\.1 .* not there .*choose another"),
        serve_status("192.0.2.1", 9112, shared.monitor),
    ):
        pass


def test_database_that_is_gone(tmp_path):
    with (
        filled_node(tmp_path) as node,
        serve_status("127.0.0.1", 0, node.monitor) as port,
    ):
        node.database.execute("DROP TABLE studies")
        with pytest.raises(urllib.error.HTTPError, match="503") as error:
            get(f"http://127.0.0.1:{port}/")
        assert error.value.read() == b"OperationalError\n"


# --- in a browser -------------------------------------------------------------------------


def chromium(folder, url: str, *flags: str, wait_ms: int = 1000) -> subprocess.CompletedProcess:
    return subprocess.run(
        [
            *(require_tool("chromium"), "--headless", "--no-sandbox", "--disable-gpu"),
            *("--hide-scrollbars", f"--user-data-dir={folder}/profile", "--enable-logging=stderr"),
            *(f"--virtual-time-budget={wait_ms}", *flags, url),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )


def dom(folder, url: str, wait_ms: int = 1000) -> tuple[Node, list[str]]:
    ended = chromium(folder, url, "--dump-dom", wait_ms=wait_ms)
    console = [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
    return parse(ended.stdout.replace(ICON, "")), console


class Changing:
    """Answers with one page first, and with other ones after that."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)

    def answer(self, path: str) -> Answer:
        assert path == "/"
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def answers(node) -> tuple[Answer, Answer]:
    """The page, and what it is a minute and a study later."""
    first = node.monitor.answer("/")
    node.clock.now = START + 60
    node.database.execute("UPDATE studies SET state = 'done' WHERE study_uid = ?", uid(2))
    return first, node.monitor.answer("/")


@pytest.mark.slow
def test_browser_shows_it_and_keeps_it_fresh(tmp_path):
    with filled_node(tmp_path) as node:
        with serve_status("127.0.0.1", 0, Changing(*answers(node))) as port:  # type: ignore
            root, console = dom(tmp_path, f"http://127.0.0.1:{port}/", wait_ms=6000)
        assert console == []
        assert root.only("title").text == "(7) ONCOFM - oncofm"
        assert root.only(id="time").text == "as of 2027-01-15 08:01:00 UTC"
        assert root.only(id="state-done").only("strong").text == "7"
        assert "hidden" in root.only(id="lost").attributes
        assert rows(root, "attention")[0][3] == f"no_report {HOSTILE}"
        assert list(root.every("img")) == []


@pytest.mark.slow
def test_browser_says_when_the_node_is_gone(tmp_path, shared):
    gone = Answer(503, "OperationalError\n")
    changing = Changing(shared.monitor.answer("/"), gone)
    with serve_status("127.0.0.1", 0, changing) as port:  # type: ignore[arg-type]
        root, _ = dom(tmp_path, f"http://127.0.0.1:{port}/", wait_ms=6000)
    assert "hidden" not in root.only(id="lost").attributes
    assert root.only(id="state-done").only("strong").text == "6"


@pytest.mark.slow
def test_policy_stops_foreign_scripts(tmp_path, shared):
    answer = shared.monitor.answer("/")
    foreign = "<script>document.title = 'taken'</script><img src=x onerror='alert(1)'></body>"
    bad = Answer(200, answer.text.replace("</body>", foreign), answer.content_type)
    with serve_status("127.0.0.1", 0, Changing(bad)) as port:  # type: ignore[arg-type]
        ended = chromium(tmp_path, f"http://127.0.0.1:{port}/", "--dump-dom")
    assert "<title>(7) ONCOFM - oncofm</title>" in ended.stdout
    assert ended.stderr.count("Content Security Policy") >= 2


FRAME = """
<title></title>
<iframe id="phone" width="390" height="800" style="border: 0" srcdoc="{}"></iframe>
<script>
phone.onload = () => {{
  const page = phone.contentDocument.documentElement;
  document.title = [phone.contentWindow.innerWidth, page.scrollWidth - page.clientWidth,
    ...Array.from(phone.contentDocument.querySelectorAll(".scroll"),
      (box) => box.scrollWidth - box.clientWidth)];
}};
</script>
"""


@pytest.mark.slow
def test_narrow_light_dark_and_print(tmp_path, shared):
    text = shared.monitor.answer("/").text
    (tmp_path / "frame.html").write_text(FRAME.format(escape(text)))
    (tmp_path / "page.html").write_text(text)
    framed = chromium(tmp_path, (tmp_path / "frame.html").as_uri(), "--dump-dom").stdout
    assert parse(framed.replace(ICON, "")).only("title").text == "390,0" + ",0" * 6

    url = (tmp_path / "page.html").as_uri()
    for scheme, is_right in ((1, lambda grey: grey > 200), (0, lambda grey: grey < 60)):
        target = tmp_path / f"{scheme}.png"
        colours = f"--blink-settings=preferredColorScheme={scheme}"
        chromium(tmp_path, url, colours, f"--screenshot={target}", "--window-size=1280,1000")
        assert is_right(np.asarray(Image.open(target).convert("L"))[100:].mean())

    chromium(tmp_path, url, "--no-pdf-header-footer", f"--print-to-pdf={tmp_path}/page.pdf")
    command = [require_tool("pdftotext"), "-layout", f"{tmp_path}/page.pdf", "-"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    sheets = printed.split("\f")[:-1]
    assert 1 < len(sheets) < 5
    assert all(RESEARCH_USE in sheet for sheet in sheets)
    assert "Rules in force" in printed
