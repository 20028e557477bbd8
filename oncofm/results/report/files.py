"""What is not on the page: inputs that were left out, and the files of the run."""

from urllib.parse import quote

from oncofm.results.manifest import Inputs
from oncofm.results.report.content import Download, LeftOut
from oncofm.results.report.limits import MOST_LEFT_OUT, MOST_NAME_CHARACTERS
from oncofm.results.report.markup import Html, code, element, isolated, printable
from oncofm.results.report.numbers import count
from oncofm.results.report.states import state_badge

_COLUMNS = ("What", "Name", "Modality", "State", "Reason", "Sentence")


def left_out_section(left_out: tuple[LeftOut, ...]) -> Html:
    """List what is not done, with its reason; empty where all is."""
    if not left_out:
        return Html()
    heads = (element("th", name, scope="col") for name in _COLUMNS)
    rows = (_left_out_row(item) for item in left_out[:MOST_LEFT_OUT])
    table = element("table", element("thead", element("tr", *heads)), element("tbody", *rows))
    title = "Not done and left out"
    return element(
        "section",
        element("h2", title),
        _omitted(len(left_out) - MOST_LEFT_OUT),
        element("div", table, class_="scroll", tabindex=0, role="region", aria_label=title),
        id="left-out",
    )


def downloads_section(words: str, downloads: tuple[Download, ...]) -> Html:
    """Link to the files beside the page."""
    items = (_download(download) for download in downloads)
    return element(
        "section",
        element("h2", "Files"),
        element("p", words),
        element("ul", *items, class_="downloads"),
        id="files",
    )


def inputs_sentence(inputs: Inputs) -> str:
    """Say what a run has used."""
    return (
        f"{count(len(inputs.series_uids), 'CT series', 'CT series')} and "
        f"{count(len(inputs.segmentation_uids), 'annotation object')} were used; "
        f"{skipped_sentence(inputs)}"
    )


def skipped_sentence(inputs: Inputs) -> str:
    """Say what was skipped, and where the rest is."""
    return (
        f"{count(inputs.n_files_skipped, 'file was', 'files were')} skipped because no reader "
        "takes them. UIDs and the versions of all libraries are in run.json."
    )


def _omitted(n: int) -> Html:
    if n <= 0:
        return Html()
    words = f"{count(n, 'more row is', 'more rows are')} in cases.csv only."
    return element("p", words, class_="note")


def _left_out_row(item: LeftOut) -> Html:
    return element(
        "tr",
        element("td", item.level),
        element("th", _name(item), scope="row", class_="uid"),
        element("td", isolated(item.modality)),
        element("td", state_badge(item.state)),
        element("td", code(item.reason)),
        element("td", isolated(item.message)),
    )


def _name(item: LeftOut) -> Html:
    return isolated(printable(item.name, MOST_NAME_CHARACTERS))


def _download(download: Download) -> Html:
    link = element("a", isolated(download.path), href=_address(download.path), download=True)
    return element("li", link, " ", element("span", download.what, class_="quiet"))


def _address(path: str) -> str:
    # Relative and percent-encoded, so that no name can become another scheme or host.
    return "./" + quote(path, errors="replace")
