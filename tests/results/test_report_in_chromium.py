"""The report in a browser: it loads from a file, sorts, filters, darkens and prints."""

import base64
import io
import json
import re
import subprocess
import time
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from results.pages import Node, done, manifest, page, parse, rejected
from results.test_batch_report import page as batch_page
from tools import require_tool

from oncofm.results.manifest import RESEARCH_USE
from oncofm.results.report import (
    Preview,
    ReportedLesion,
    render_batch_report,
    render_report,
)

pytestmark = pytest.mark.slow

LIGHT, DARK = 1, 0
N_MANY = 1000


@pytest.fixture(scope="module")
def picture():
    """A preview of a real size."""
    grey = np.random.default_rng(0).integers(0, 255, (60, 60), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey).resize((480, 480)).save(file, "WEBP", quality=75)
    uri = f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
    return Preview((uri,) * 3)


@dataclass(frozen=True)
class Browser:
    """Chromium without a window, and without a profile that it could remember things in."""

    folder: Path

    def run(self, path: Path, *flags: str, fragment: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                require_tool("chromium"),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                f"--user-data-dir={self.folder / 'profile'}",
                "--enable-logging=stderr",
                "--virtual-time-budget=3000",
                *flags,
                f"{path.as_uri()}{fragment}",
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=600,
        )

    def dom(self, path: Path, fragment: str = "") -> tuple[Node, list[str]]:
        """The page when its script ran, and what was said on the console."""
        ended = self.run(path, "--dump-dom", fragment=fragment)
        console = [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
        return parse(ended.stdout), console

    def screenshot(self, path: Path, scheme: int, width: int = 1280) -> np.ndarray:
        target = self.folder / f"{scheme}-{width}.png"
        colours = f"--blink-settings=preferredColorScheme={scheme}"
        self.run(path, colours, f"--screenshot={target}", f"--window-size={width},1600")
        return np.asarray(Image.open(target).convert("RGB"))

    def pdf(self, path: Path) -> list[str]:
        """Print, and give the text of each sheet."""
        target = self.folder / "report.pdf"
        self.run(path, "--no-pdf-header-footer", f"--print-to-pdf={target}")
        command = [require_tool("pdftotext"), "-layout", target, "-"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return text.split("\f")[:-1]


@pytest.fixture
def browser(tmp_path):
    return Browser(tmp_path)


@pytest.fixture
def report(tmp_path):
    def write(source: str) -> Path:
        path = tmp_path / "report.html"
        path.write_text(source, encoding="utf-8")
        return path

    return write


def rows(root: Node) -> list[Node]:
    return list(root.only(id="lesion-table").only("tbody").every("tr"))


def volume_mm3(lesion: ReportedLesion) -> float:
    return lesion.seed.volume_mm3


def shown(nodes) -> list[str]:
    return [node.only("a").text for node in nodes if "hidden" not in node.attributes]


def with_probe(source: str, probe: str) -> str:
    """Add a script to a page; its policy would forbid that, so it goes."""
    source, n_policies = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", source)
    assert n_policies == 1
    end = "</body>"
    return source.replace(end, f"<script>{probe}</script>{end}")


def test_loads_without_a_word_on_the_console(browser, report, picture):
    lesions = (done(1, preview=picture), done(2), rejected(1))
    root, console = browser.dom(report(render_report(page(lesions=lesions))))
    assert console == []
    assert "has-script" in root.only("html")["class"]
    assert root.only("output").text == "3 lesions"


def test_policy_stops_foreign_scripts_and_pictures(browser, report):
    foreign = (
        "<script>document.title = 'taken'</script>"
        "<img src='https://example.invalid/a.png' onerror='document.title = \"taken\"'></body>"
    )
    source = render_report(page()).replace("</body>", foreign)
    root, console = browser.dom(report(source))
    assert root.only("title").text == "Lesion report - oncofm"
    assert len([line for line in console if "Content Security Policy" in line]) >= 2


@pytest.mark.parametrize(
    ("sign", "column", "key"),
    [
        ("", "size", lambda lesion: max(lesion.seed.extent_mm)),
        ("-", "volume", volume_mm3),
        ("-", "head-1", lambda lesion: lesion.predictions[0].values[1]),
        ("", "lesion", lambda lesion: int(lesion.seed.lesion_id.split("-")[1])),
    ],
)
def test_sorts_by_address(sign, column, key, browser, report):
    lesions = [done(number) for number in range(1, 21)]
    path = report(render_report(page(lesions=(rejected(1), *lesions))))
    root, _ = browser.dom(path, f"#sort={sign}{column}")
    expected = [lesion.seed.lesion_id for lesion in sorted(lesions, key=key, reverse=sign == "-")]
    found = shown(rows(root))
    if column == "lesion":  # the rejected one is called point-1
        found.remove("point-1")
    else:
        assert found.pop() == "point-1", "what has no value is last either way"
    assert found == expected
    heads = root.only(id="lesion-table").only("thead").every("th")
    order = {head["data-key"]: head["aria-sort"] for head in heads}
    assert order.pop(column) == ("descending" if sign else "ascending")
    assert set(order.values()) == {"none"}


@pytest.mark.parametrize("fragment", ["#sort=nothing", "#sort=--volume", "#%ff"])
def test_other_addresses_leave_the_order(fragment, browser, report):
    root, console = browser.dom(report(render_report(page())), fragment)
    assert shown(rows(root)) == ["segment-1", "segment-2", "segment-3", "point-1"]
    assert console == []


CLICKS = """
const seen = [];
const table = document.getElementById("lesion-table");
const ids = () => Array.from(table.tBodies[0].rows).filter((row) => !row.hidden)
  .map((row) => row.querySelector("a").textContent).join(" ");
const cards = () => document.querySelectorAll("article.lesion:not([hidden])").length;
const type = (id, value, event) => {
  const field = document.getElementById(id);
  field.value = value;
  field.dispatchEvent(new Event(event));
  seen.push([ids(), cards(), document.getElementById("shown").textContent]);
};
const button = table.querySelector("[data-key=volume] button");
for (let i = 0; i < 3; i++) { button.click(); seen.push([ids(), location.hash]); }
type("filter", "SEGMENT-2", "input");
type("filter", "seed_outside_volume point", "input");
type("filter", "2.25.1", "input");
type("filter", "", "input");
type("state", "rejected", "change");
type("state", "", "change");
table.tBodies[0].rows[0].cells[3].click();
seen.push([location.hash]);
document.title = JSON.stringify(seen);
"""


def test_clicks_sort_filter_and_lead_to_cards(browser, report):
    lesions = [done(number) for number in (1, 2, 3)]
    by_volume = [lesion.seed.lesion_id for lesion in sorted(lesions, key=volume_mm3)]
    root, console = browser.dom(report(with_probe(render_report(page()), CLICKS)))
    assert console == []
    up, down = " ".join([*by_volume, "point-1"]), " ".join([*by_volume[::-1], "point-1"])
    assert json.loads(root.only("title").text) == [
        [up, "#sort=volume"],
        [down, "#sort=-volume"],
        [up, "#sort=volume"],
        ["segment-2", 1, "1 of 4 lesions"],
        ["point-1", 1, "1 of 4 lesions"],
        ["", 0, "0 of 4 lesions"],  # the table does not show tracking UIDs
        [up, 4, "4 lesions"],
        ["point-1", 1, "1 of 4 lesions"],
        [up, 4, "4 lesions"],
        [f"#lesion-{by_volume[0].split('-')[1]}"],
    ]


def test_dark_and_light(browser, report, picture):
    path = report(render_report(page(lesions=(done(1, preview=picture),))))
    light, dark = browser.screenshot(path, LIGHT), browser.screenshot(path, DARK)
    assert light[-40:].mean() > 200
    assert dark[-40:].mean() < 60


FRAME = """
<iframe id="phone" width="390" height="800" style="border: 0" srcdoc="{}"></iframe>
<script>
// Some time after it was loaded: once its style was not there yet.
phone.onload = () => setTimeout(() => {{
  const page = phone.contentDocument.documentElement;
  document.title = [phone.contentWindow.innerWidth, page.scrollWidth - page.clientWidth];
}}, 500);
</script>
"""


def test_narrow_page_does_not_scroll_sideways(browser, report, picture):
    words = "RANDOM WEIGHTS (seed 0): the features have no meaning"
    lesions = (done(1, preview=picture, message="x" * 900), rejected(1))
    source = render_report(page(lesions=lesions, manifest=manifest(weights=words)))
    root, _ = browser.dom(report(f"<title></title>{FRAME.format(escape(source))}"))
    assert root.only("title").text == "390,0"


def test_every_sheet_of_paper_has_the_statement(browser, report, picture):
    lesions = tuple(done(number, preview=picture) for number in range(1, 7))
    sheets = browser.pdf(report(render_report(page(lesions=lesions))))
    assert len(sheets) > 3
    for number, sheet in enumerate(sheets, 1):
        assert RESEARCH_USE in sheet
        assert f"{number}/{len(sheets)}" in sheet.replace(" ", "")
    for lesion in lesions:  # a card is on one sheet
        uid, sentence = lesion.seed.source.tracking_uid, lesion.notices[0].message
        (sheet,) = [sheet for sheet in sheets if uid in sheet.split()]
        assert sentence in sheet
    assert "Filter" not in "".join(sheets)


TIMES = """
const times = [];
for (const button of document.querySelectorAll("#lesion-table thead button")) {
  const start = performance.now();
  button.click();
  times.push(performance.now() - start);
}
document.title = JSON.stringify(times);
"""


def test_a_thousand_lesions_stay_usable(browser, report, picture):
    lesions = tuple(
        done(number, preview=picture if number <= 100 else None) for number in range(1, N_MANY + 1)
    )
    source = render_report(page(lesions=lesions, manifest=manifest(N_MANY)))
    path = report(source)
    start = time.perf_counter()
    root, console = browser.dom(path, "#sort=-volume")
    assert time.perf_counter() - start < 300
    assert console == []
    volumes = [lesion.seed.volume_mm3 for lesion in lesions]
    found = [int(row["data-number"]) for row in rows(root)]
    assert [volumes[number - 1] for number in found] == sorted(volumes, reverse=True)

    # Real time here: the virtual clock stands still while a script runs.
    timed, _ = browser.dom(report(with_probe(source, TIMES)))
    times_ms = json.loads(timed.only("title").text)
    assert len(times_ms) == 11
    assert np.median(times_ms) < 1000


# --- the report of a batch ----------------------------------------------------------------


def test_a_batch_loads_without_a_word_darkens_and_prints(browser, report):
    path = report(render_batch_report(batch_page()))
    _, console = browser.dom(path)
    assert console == []
    light, dark = browser.screenshot(path, LIGHT), browser.screenshot(path, DARK)
    assert light[-40:].mean() > 200
    assert dark[-40:].mean() < 60
    sheets = browser.pdf(path)
    assert len(sheets) > 1
    assert all(RESEARCH_USE in sheet for sheet in sheets)
    assert "Too slow." in "".join(sheets)


def test_a_narrow_batch_does_not_scroll_sideways(browser, report):
    source = render_batch_report(batch_page())
    root, _ = browser.dom(report(f"<title></title>{FRAME.format(escape(source))}"))
    assert root.only("title").text == "390,0"
