"""The status page of a node, as HTML that loads nothing."""

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from oncofm.pacs.database import QUARANTINED
from oncofm.pacs.page_pieces import moment
from oncofm.pacs.page_sections import sections
from oncofm.pacs.status import NodeStatus
from oncofm.results.manifest import RESEARCH_USE
from oncofm.results.report.markup import Html, element, isolated

_ASSETS = {"report.css": "oncofm.results.report", "page.css": "oncofm.pacs"}
_SCRIPT = "page.js"
_WITHOUT_SCRIPT_S = 30


@dataclass(frozen=True)
class Process:
    """What only the process itself knows about a node.

    Attributes
    ----------
    started : str
        UTC, ISO 8601.
    is_ready : bool
        Whether it takes objects and can run jobs.
    problems : list of str
        Sentences that say why not.
    """

    started: str
    is_ready: bool
    problems: list[str]


def render_page(status: NodeStatus, process: Process) -> str:
    """Write the status page.

    Parameters
    ----------
    status : NodeStatus
        What it says.
    process : Process
        And about the process.

    Returns
    -------
    str
        A document that loads nothing but itself, again and again; `content_policy` forbids all
        else.
    """
    titles = ", ".join(status.ae_titles)
    body = element(
        "body",
        element("header", element("p", RESEARCH_USE), class_="statement"),
        element(
            "main",
            element("h1", "Node ", isolated(titles)),
            element(
                "p",
                element("span", f"oncofm {status.version}", id="version"),
                f" · port {status.port} · ",
                element("span", "as of ", moment(status.time), " UTC", id="time"),
                class_="subtitle",
            ),
            element("p", "No answer from the node.", id="lost", class_="alarm", hidden=True),
            _state(process),
            *sections(status),
        ),
        element("script", _script()),
    )
    n_quarantined = status.studies[QUARANTINED]
    title = f"{f'({n_quarantined}) ' if n_quarantined else ''}{titles} - oncofm"
    document = element("html", _head(title), body, lang="en")
    return f"<!DOCTYPE html>\n{document}\n"


@cache
def content_policy() -> str:
    """Content-Security-Policy that the page is sent with."""
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "img-src data:; connect-src 'self'; "
        f"style-src {_digest(_style())}; script-src {_digest(_script())}"
    )


def _head(title: str) -> Html:
    refresh = element("meta", http_equiv="refresh", content=_WITHOUT_SCRIPT_S)
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="robots", content="noindex"),
        element("noscript", refresh),
        element("title", title),
        Html('<link rel="icon" href="data:,">'),
        element("style", _style()),
    )


def _state(process: Process) -> Html:
    if process.is_ready:
        content = element(
            "p",
            element("span", "ready", class_="badge done"),
            " The node takes objects and runs jobs. It was started ",
            moment(process.started),
            ".",
        )
        return element("div", content, id="state", class_="state")
    sentences = (element("p", sentence) for sentence in process.problems)
    return element(
        "div", element("strong", "Not ready"), *sentences, id="state", class_="state alarm"
    )


@cache
def _style() -> Html:
    return Html("".join(_asset(package, name) for name, package in _ASSETS.items()))


@cache
def _script() -> Html:
    return Html(_asset(__package__ or "", _SCRIPT))


def _asset(package: str, name: str) -> str:
    return "\n" + (resources.files(package) / name).read_text(encoding="utf-8")


def _digest(source: str) -> str:
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
