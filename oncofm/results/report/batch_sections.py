"""The sections that only the report of a batch has."""

from collections.abc import Iterable

from oncofm.biomarkers.card import CLASS_KINDS
from oncofm.biomarkers.predictions import OUTLIER_PERCENTILE
from oncofm.results.manifest import Attempt, Throughput
from oncofm.results.report.batch_content import BatchPage, HeadFigures, ReasonGroup
from oncofm.results.report.charts import histogram, quantile_cells, quantile_heads, shares
from oncofm.results.report.heads import quantity, threshold_text
from oncofm.results.report.limits import (
    MOST_ATTEMPTS,
    MOST_NAME_CHARACTERS,
    MOST_OUTPUTS,
    MOST_REASONS,
    MOST_SENTENCE_CHARACTERS,
)
from oncofm.results.report.markup import Html, code, element, isolated, join, printable
from oncofm.results.report.numbers import count, number
from oncofm.results.report.run import fact_list, moment
from oncofm.results.report.states import badge, state_badge

_LIMITS = {
    "readers": "the readers: more --workers, or a faster disk, would help most",
    "cluster": "the workers of the cluster",
    "encoder": "the encoder: a GPU, or shards on more machines, would help most",
    "writing": "writing the results",
}
_WAITING = {"cluster": "waiting for the cluster"}


def throughput_section(
    throughput: Throughput | None, slowest: tuple[tuple[str, float], ...]
) -> Html:
    """Say how fast it went, what limited it and what it took; empty where nothing was computed."""
    if throughput is None:
        return Html()
    rates = element(
        "div",
        _rate_tile("Cases a second", throughput.cases_per_s, throughput.n_cases),
        _rate_tile("Lesions a second", throughput.lesions_per_s, throughput.n_lesions),
        _time_tile(throughput),
        class_="tiles",
    )
    return element(
        "section",
        element("h2", "Throughput and resources"),
        rates,
        _spent(throughput),
        fact_list(_resources(throughput)),
        _slowest_table(slowest),
        _attempts_table(throughput.attempts),
        id="throughput",
    )


def _rate_tile(name: str, rate: float, n: int) -> Html:
    big = element("p", element("strong", number(rate, 2)), class_="big")
    return element("div", element("h3", name), big, element("p", f"{n} computed", class_="quiet"))


def _time_tile(throughput: Throughput) -> Html:
    n = len(throughput.attempts)
    return element(
        "div",
        element("h3", "Time of work"),
        element("p", element("strong", duration(throughput.seconds)), class_="big"),
        element("p", f"in {count(n, 'attempt')}", class_="quiet"),
    )


def _spent(throughput: Throughput) -> Html:
    """Draw what the time went to."""
    waiting = _WAITING.get(throughput.limited_by or "", "waiting for readers")
    parts = {
        waiting: throughput.waiting_s or 0.0,
        "encoding": throughput.encoding_s or 0.0,
        "writing": throughput.writing_s or 0.0,
    }
    words = _LIMITS.get(throughput.limited_by or "", "")
    sentence = f"Most of the time went to {words}." if words else ""
    return join([element("p", sentence), shares(parts, "What the time went to")])


def _resources(throughput: Throughput) -> dict[str, str]:
    facts: dict[str, str] = {
        "Began": moment(throughput.started_at),
        "Ended": moment(throughput.ended_at),
        "Workers": str(throughput.n_workers),
    }
    for kind, memory_mib in throughput.peak_memory_mib.items():
        facts[f"Peak memory, {kind} process"] = number(memory_mib, 0, "MiB")
    if throughput.reading_s is not None:
        facts["Readers worked"] = element("span", duration(throughput.reading_s), " in all")
    if throughput.held_up_s is not None:
        facts["Readers waited"] = element("span", duration(throughput.held_up_s), " in all")
    if throughput.bytes_read is not None:
        facts["Read"] = number(throughput.bytes_read / 2**30, 2, "GiB")
        if throughput.reading_s:
            facts["Read per second of reading"] = number(
                throughput.bytes_read / 2**20 / throughput.reading_s, 1, "MiB/s"
            )
    return facts


def _slowest_table(slowest: tuple[tuple[str, float], ...]) -> Html:
    if not slowest:
        return Html()
    rows = (
        element(
            "tr",
            element("th", _name(item_id), scope="row", class_="uid"),
            element("td", number(seconds, 2, "s"), class_="number"),
        )
        for item_id, seconds in slowest
    )
    return _titled_table("Slowest to read", {"Item": None, "Seconds": "number"}, rows)


def _attempts_table(attempts: list[Attempt]) -> Html:
    if len(attempts) < 2:
        return Html()
    shown = attempts[-MOST_ATTEMPTS:]
    rows = (
        element(
            "tr",
            element("td", moment(each.started_at)),
            element("td", moment(each.ended_at)),
            element("td", number(each.n_cases, 0), class_="number"),
            element("td", number(each.n_lesions, 0), class_="number"),
            element("td", number(each.n_workers, 0), class_="number"),
            element("td", duration(each.seconds), class_="number"),
        )
        for each in shown
    )
    omitted = len(attempts) - len(shown)
    note = f"{count(omitted, 'earlier attempt is', 'earlier attempts are')} in run.json only."
    columns: dict[str, str | None] = {"Began": None, "Last wrote": None}
    columns |= dict.fromkeys(("Cases", "Lesions", "Workers", "Time"), "number")
    table = _titled_table("Attempts", columns, rows)
    return join([table, element("p", note, class_="note") if omitted else Html()])


# --- what is not done -------------------------------------------------------------------------


def reasons_section(page: BatchPage) -> Html:
    """List what is not done by reason, with the first of each; empty where all is."""
    shown = page.reasons[:MOST_REASONS]
    omitted = len(page.reasons) - len(shown)
    sentences = []
    if page.n_left:
        items = count(page.n_left, "item is", "items are")
        sentences.append(f"{items} not computed yet; the same command with --resume goes on.")
    if shown:
        sentences.append(
            "The first of each reason follow. All of them, with their sentences, are in cases.csv: "
            "filter its columns level and reason; of outputs the ledger knows."
        )
    if omitted:
        sentences.append(f"{count(omitted, 'more reason is', 'more reasons are')} there only.")
    if not sentences:
        return Html()
    return element(
        "section",
        element("h2", "Not done and left out, by reason"),
        element("p", " ".join(sentences), class_="note"),
        element("div", *(_reason_card(group) for group in shown), class_="reasons"),
        id="reasons",
    )


def _reason_card(group: ReasonGroup) -> Html:
    plural = {"series": "series"}.get(group.level, f"{group.level}s")
    items = (
        element(
            "li",
            element("span", _name(example.name), class_="uid"),
            _of_item(example.name, example.item_id),
            element("span", isolated(printable(example.message, MOST_SENTENCE_CHARACTERS))),
        )
        for example in group.examples
    )
    rest = group.n - len(group.examples)
    more = [element("p", f"and {rest} more", class_="quiet")] if rest else []
    return element(
        "details",
        element(
            "summary",
            state_badge(group.state),
            code(group.reason) if group.reason else Html(),
            element("span", count(group.n, group.level, plural), class_="count"),
        ),
        element("ul", *items),
        *more,
        open=True,
    )


def _of_item(name: str, item_id: str) -> Html:
    if not item_id or item_id == name:
        return Html()
    return element("span", "item ", _name(item_id), class_="quiet uid")


# --- what the heads say -----------------------------------------------------------------------


def distributions_section(heads: tuple[HeadFigures, ...]) -> Html:
    """Show what each head says about all lesions; empty without heads."""
    if not heads:
        return Html()
    cards = (_head_card(head) for head in heads)
    return element(
        "section",
        element("h2", "Predictions"),
        element("p", "Over all lesions that are done.", class_="note"),
        *cards,
        id="predictions",
    )


def _head_card(head: HeadFigures) -> Html:
    card = head.card
    words = isolated(printable(card.title, MOST_NAME_CHARACTERS))
    title = element("h3", join([words, *_badges(head)], " "))
    return element(
        "article",
        title,
        element("p", isolated(card.name), f", {count(head.n_lesions, 'lesion')}", class_="quiet"),
        _outputs_table(head),
        _groups(head),
        _percentiles(head),
        class_="lesion spread",
    )


def _badges(head: HeadFigures) -> list[Html]:
    if not head.n_outliers:
        return []
    return [badge(f"{head.n_outliers} out of distribution", "outlier")]


def _outputs_table(head: HeadFigures) -> Html:
    if not head.outputs:
        return element("p", "It said nothing about any lesion.", class_="note")
    card = head.card
    last = len(head.outputs) - 1
    rows = []
    for index, (name, spread) in enumerate(head.outputs[:MOST_OUTPUTS]):
        mark = card.threshold.value if card.threshold is not None and index == last else None
        shown = name if card.kind in CLASS_KINDS else quantity(card)
        label = f"Histogram of {printable(shown, MOST_NAME_CHARACTERS)}"
        rows.append(
            element(
                "tr",
                element("th", isolated(printable(shown, MOST_NAME_CHARACTERS)), scope="row"),
                element("td", histogram(spread, label, mark)),
                quantile_cells(spread),
            )
        )
    what = "Class" if card.kind in CLASS_KINDS else "Value"
    heads = element(
        "tr",
        element("th", what, scope="col"),
        element("th", "Probability" if what == "Class" else "Spread", scope="col"),
        quantile_heads(),
    )
    table = element("table", element("thead", heads), element("tbody", *rows))
    omitted = len(head.outputs) - len(rows)
    words = f"{count(omitted, 'more class is', 'more classes are')} in predictions.csv only."
    note = element("p", words, class_="note") if omitted else Html()
    return join([_scroll(table, card.title), note])


def _groups(head: HeadFigures) -> Html:
    if not head.risk_groups or head.card.threshold is None:
        return Html()
    words = join([threshold_text(head.card, head.card.threshold), Html(".")])
    named = {f"{name} risk group ({n})": float(n) for name, n in head.risk_groups.items()}
    return join([shares(named, "Risk groups"), element("p", words, class_="remarks")])


def _percentiles(head: HeadFigures) -> Html:
    if head.percentiles is None:
        return Html()
    words = (
        f"Distance from the head's training data, as a percentile of it: {head.n_outliers} of "
        f"{count(head.n_lesions, 'lesion')} lie above {OUTLIER_PERCENTILE:g}, where the head may "
        "not hold. Lesions like the training data would spread evenly."
    )
    label = "Histogram of training percentiles"
    return element(
        "div",
        element("h4", "How unusual the lesions are"),
        histogram(head.percentiles, label, OUTLIER_PERCENTILE),
        element("p", words, class_="remarks"),
        class_="percentiles",
    )


# --- words and frames -------------------------------------------------------------------------


def duration(seconds: float) -> Html:
    """Show seconds as hours, minutes and seconds, with the exact value in the markup."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        words = f"{hours} h {minutes:02d} min"
    elif minutes:
        words = f"{minutes} min {left:02d} s"
    else:
        words = f"{seconds:.1f} s"
    return element("data", words, value=repr(float(seconds)))


def _name(name: str) -> Html:
    return isolated(printable(name, MOST_NAME_CHARACTERS))


def _titled_table(title: str, columns: dict[str, str | None], rows: Iterable[Html]) -> Html:
    """Make a table; columns have names and classes."""
    heads = element(
        "tr", *(element("th", name, scope="col", class_=kind) for name, kind in columns.items())
    )
    table = element("table", element("thead", heads), element("tbody", *rows))
    return join([element("h3", title), _scroll(table, title)])


def _scroll(table: Html, title: str) -> Html:
    return element(
        "div",
        table,
        class_="scroll",
        tabindex=0,
        role="region",
        aria_label=printable(title, MOST_NAME_CHARACTERS),
    )
