"""The page as a whole: its head, its frame, and the order of its sections."""

import base64
import hashlib
from functools import cache
from importlib import resources

from oncofm.results.manifest import RESEARCH_USE
from oncofm.results.report.content import Page
from oncofm.results.report.files import downloads_section, left_out_section
from oncofm.results.report.heads import heads_section
from oncofm.results.report.lesion_card import cards_section
from oncofm.results.report.lesion_table import table_section
from oncofm.results.report.markup import Html, element, join
from oncofm.results.report.numbers import count
from oncofm.results.report.run import (
    has_random_weights,
    moment,
    run_section,
    weights_warning,
)

TITLE = "Lesion report"


def render_report(page: Page) -> str:
    """Write a report as HTML.

    Parameters
    ----------
    page : Page
        What it says.

    Returns
    -------
    str
        A document that loads nothing: styles, script and pictures are in it, and its
        Content-Security-Policy forbids all else. The same page gives the same text.
    """
    sections = {
        "run": ("Run", run_section(page)),
        "lesions": ("Lesions", table_section(page)),
        "cards": ("Details", cards_section(page)),
        "heads": ("Heads", heads_section(page.heads)),
        "left-out": ("Not done", left_out_section(page.left_out)),
        "files": ("Files", downloads_section(page)),
    }
    links = [
        element("li", element("a", name, href=f"#{key}"))
        for key, (name, content) in sections.items()
        if content
    ]
    body = element(
        "body",
        element("a", "Skip to the lesions", href="#lesions", class_="skip"),
        _bar(page),
        element(
            "main",
            _title(page),
            weights_warning(page.manifest),
            element("nav", element("ul", *links), aria_label="Sections"),
            *(content for _, content in sections.values()),
        ),
        element("script", _script()),
    )
    document = element("html", _head(), body, lang="en")
    return f"<!DOCTYPE html>\n{document}\n"


def _head() -> Html:
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src {_digest(_style())}; script-src {_digest(_script())}"
    )
    return element(
        "head",
        element("meta", charset="utf-8"),
        # Before all that it is about. Quotes are safe in an attribute with double quotes.
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="robots", content="noindex"),
        element("title", f"{TITLE} - oncofm"),
        element("style", _style()),
    )


def _bar(page: Page) -> Html:
    """Research-use statement; it stays in view, and is repeated on every sheet of paper."""
    sentences = [element("span", RESEARCH_USE)]
    if has_random_weights(page.manifest):
        sentences.append(element("strong", "Random weights: the numbers have no meaning."))
    return element("header", element("p", join(sentences, " ")), class_="statement")


def _title(page: Page) -> Html:
    manifest = page.manifest
    cases = sum(manifest.summary.cases.values())
    lesions = sum(manifest.summary.lesions.values())
    facts = (
        f"{count(lesions, 'lesion')} in {count(cases, 'case')}",
        f"model {manifest.model.name}",
        f"{manifest.software.name} {manifest.software.version}",
    )
    return join(
        [
            element("h1", TITLE),
            element("p", " · ".join(facts), " · ", moment(manifest.finished_at), class_="subtitle"),
        ]
    )


@cache
def _style() -> Html:
    return _asset("report.css")


@cache
def _script() -> Html:
    return _asset("report.js")


def _asset(name: str) -> Html:
    path = resources.files("oncofm.results.report") / name
    return Html("\n" + path.read_text(encoding="utf-8"))


def _digest(source: str) -> str:
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
