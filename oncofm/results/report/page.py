"""The page as a whole: its head, its frame, and the order of its sections."""

import base64
import hashlib
from functools import cache
from importlib import resources

from oncofm.results.manifest import RESEARCH_USE, RunManifest
from oncofm.results.report.batch_content import BatchPage
from oncofm.results.report.batch_sections import (
    distributions_section,
    reasons_section,
    throughput_section,
)
from oncofm.results.report.content import Page
from oncofm.results.report.files import (
    downloads_section,
    inputs_sentence,
    left_out_section,
    skipped_sentence,
)
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

TITLE, BATCH_TITLE = "Lesion report", "Batch report"


def render_report(page: Page) -> str:
    """Write the report of a run as HTML.

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
    manifest = page.manifest
    sections = {
        "run": ("Run", run_section(manifest)),
        "lesions": ("Lesions", table_section(page)),
        "cards": ("Details", cards_section(page)),
        "heads": ("Heads", heads_section(page.heads)),
        "left-out": ("Not done", left_out_section(page.left_out)),
        "files": ("Files", downloads_section(inputs_sentence(manifest.inputs), page.downloads)),
    }
    skip = element("a", "Skip to the lesions", href="#lesions", class_="skip")
    return _document(TITLE, manifest, sections, skip, _script())


def render_batch_report(page: BatchPage) -> str:
    """Write the report of a batch as HTML; what `render_report` promises holds, without a script.

    Parameters
    ----------
    page : BatchPage
        What it says: its length does not depend on the number of cases.
    """
    manifest = page.manifest
    cards = tuple(head.card for head in page.heads)
    words = f"A row per lesion, and per case, is in the tables. {skipped_sentence(manifest.inputs)}"
    sections = {
        "run": ("Batch", run_section(manifest)),
        "reasons": ("Not done", reasons_section(page)),
        "predictions": ("Predictions", distributions_section(page.heads)),
        "throughput": ("Throughput", throughput_section(manifest.throughput, page.slowest)),
        "heads": ("Heads", heads_section(cards)),
        "files": ("Files", downloads_section(words, page.downloads)),
    }
    skip = element("a", "Skip to the counts", href="#run", class_="skip")
    return _document(BATCH_TITLE, manifest, sections, skip)


def _document(
    title: str,
    manifest: RunManifest,
    sections: dict[str, tuple[str, Html]],
    skip: Html,
    script: Html = Html(),  # noqa: B008 - a text
) -> str:
    links = [
        element("li", element("a", name, href=f"#{key}"))
        for key, (name, content) in sections.items()
        if content
    ]
    body = element(
        "body",
        skip,
        _bar(manifest),
        element(
            "main",
            _title(title, manifest),
            weights_warning(manifest),
            element("nav", element("ul", *links), aria_label="Sections"),
            *(content for _, content in sections.values()),
        ),
        element("script", script) if script else Html(),
    )
    document = element("html", _head(title, script), body, lang="en")
    return f"<!DOCTYPE html>\n{document}\n"


def _head(title: str, script: Html) -> Html:
    allowed = _digest(script) if script else "'none'"
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src {_digest(_style())}; script-src {allowed}"
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
        element("title", f"{title} - oncofm"),
        element("style", _style()),
    )


def _bar(manifest: RunManifest) -> Html:
    """Research-use statement; it stays in view, and is repeated on every sheet of paper."""
    sentences = [element("span", RESEARCH_USE)]
    if has_random_weights(manifest):
        sentences.append(element("strong", "Random weights: the numbers have no meaning."))
    return element("header", element("p", join(sentences, " ")), class_="statement")


def _title(title: str, manifest: RunManifest) -> Html:
    cases = sum(manifest.summary.cases.values())
    lesions = sum(manifest.summary.lesions.values())
    facts = (
        f"{count(lesions, 'lesion')} in {count(cases, 'case')}",
        f"model {manifest.model.name}",
        f"{manifest.software.name} {manifest.software.version}",
    )
    return join(
        [
            element("h1", title),
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
