"""The table of lesions: a row each, to be sorted and filtered."""

from collections.abc import Iterator

from oncofm.biomarkers.card import CLASS_KINDS, HeadCard
from oncofm.biomarkers.predictions import Prediction
from oncofm.results.report.content import Page, ReportedLesion
from oncofm.results.report.heads import quantity
from oncofm.results.report.limits import MOST_NAME_CHARACTERS
from oncofm.results.report.markup import Html, code, element, isolated, join, printable
from oncofm.results.report.numbers import count, number
from oncofm.results.report.states import STATES, badge, state_badge

_MOST_NAME, _NAME_HEAD, _NAME_TAIL = 24, 8, 14
_NOTHING = element("td", "–", class_="nothing")
_NO_NUMBER = element("td", "–", class_="nothing number")


def table_section(page: Page) -> Html:
    """Build the section with the table and what filters it."""
    lesions = page.lesions
    if not lesions:
        nothing = element("p", "The run found no lesion.")
        return element("section", element("h2", "Lesions"), nothing, id="lesions")
    rows = (_row(number_, lesion, page.heads) for number_, lesion in enumerate(lesions, 1))
    table = element(
        "table",
        element(
            "caption",
            "Lesions. The buttons in the head sort; a row leads to its details.",
            class_="for-ears",
        ),
        element("thead", element("tr", *_columns(page.heads))),
        element("tbody", *rows),
        id="lesion-table",
    )
    return element(
        "section",
        element("h2", "Lesions"),
        _omitted(sum(page.manifest.summary.lesions.values()) - len(lesions)),
        _controls(lesions),
        element("div", table, class_="scroll", tabindex=0, role="region", aria_label="Lesions"),
        id="lesions",
    )


def short_name(name: str) -> Html:
    """Show the two ends of a long identifier; all of it is in the title."""
    if len(name) <= _MOST_NAME:
        return isolated(name)
    cut = f"{printable(name[:_NAME_HEAD])}…{printable(name[-_NAME_TAIL:])}"
    return element("bdi", cut, title=printable(name, MOST_NAME_CHARACTERS))


def _omitted(n: int) -> Html:
    if n <= 0:
        return Html()
    words = f"{count(n, 'more lesion is', 'more lesions are')} in cases.csv only: too many to show."
    return element("p", words, class_="note")


def _controls(lesions: tuple[ReportedLesion, ...]) -> Html:
    present = {lesion.state for lesion in lesions}
    states = [element("option", state, value=state) for state in STATES if state in present]
    return element(
        "form",
        element("label", "Filter ", element("input", type="search", id="filter")),
        element(
            "label",
            "State ",
            element("select", element("option", "all", value=""), *states, id="state"),
        ),
        element("output", count(len(lesions), "lesion"), id="shown", aria_live="polite"),
        class_="controls",
    )


def _columns(heads: tuple[HeadCard, ...]) -> Iterator[Html]:
    yield _column("lesion", "Lesion")
    yield _column("label", "Label")
    yield _column("case", "Case")
    yield _column("state", "State")
    for index, card in enumerate(heads, 1):
        yield _column(f"head-{index}", card.title, _what_is_shown(card))
    yield _column("size", "Longest side", "mm", numeric=True)
    yield _column("volume", "Volume", "mm³", numeric=True)
    yield _column("warnings", "Warnings")


def _column(key: str, name: str, below: str = "", numeric: bool = False) -> Html:
    words = [isolated(printable(name, MOST_NAME_CHARACTERS))]
    if below:
        words.append(element("small", isolated(printable(below, MOST_NAME_CHARACTERS))))
    button = element("button", *words, type="button")
    return element(
        "th",
        button,
        scope="col",
        data_key=key,
        aria_sort="none",
        class_="number" if numeric else None,
    )


def _what_is_shown(card: HeadCard) -> str:
    if card.kind not in CLASS_KINDS:
        return quantity(card)
    return f"P({card.classes[-1]})" if len(card.classes) == 2 else "likeliest class"


def _row(number_: int, lesion: ReportedLesion, heads: tuple[HeadCard, ...]) -> Html:
    source = lesion.seed.source
    name = short_name(lesion.seed.lesion_id)
    link = element("a", name, href=f"#lesion-{number_}")
    return element(
        "tr",
        element("th", link, scope="row"),
        element("td", short_name(source.segment_label)) if source.segment_label else _NOTHING,
        element("td", short_name(lesion.case.case_id), class_="uid"),
        element("td", state_badge(lesion.state), *_reason(lesion)),
        *(_said(lesion, card) for card in heads),
        *_sizes(lesion),
        _warnings(lesion),
        data_number=number_,
        data_state=lesion.state,
    )


def _reason(lesion: ReportedLesion) -> Iterator[Html]:
    if lesion.reason:
        yield element("br")
        yield code(lesion.reason)


def _said(lesion: ReportedLesion, card: HeadCard) -> Html:
    prediction = next((said for said in lesion.predictions if said.card == card), None)
    if prediction is None:
        return _NOTHING
    key, shown = _headline(prediction)
    badges = []
    if prediction.risk_group is not None:
        badges.append(badge(f"{prediction.risk_group} risk", f"risk-{prediction.risk_group}"))
    if prediction.is_outlier:
        badges.append(badge("out of distribution", "outlier"))
    return element("td", join([shown, *badges], " "), data_key=repr(key))


def _headline(prediction: Prediction) -> tuple[float, Html]:
    """Give the number that a column is sorted by, and what stands in it."""
    card, values = prediction.card, prediction.values
    if card.kind not in CLASS_KINDS or len(values) == 2:
        return values[-1], number(values[-1])
    best = max(range(len(values)), key=values.__getitem__)
    # By class, and the surest of a class first.
    name = printable(card.classes[best], MOST_NAME_CHARACTERS)
    return best + 1 - values[best], join([isolated(name), number(values[best])], " ")


def _sizes(lesion: ReportedLesion) -> Iterator[Html]:
    extent_mm = getattr(lesion.seed, "extent_mm", None)
    volume_mm3 = getattr(lesion.seed, "volume_mm3", None)
    yield _NO_NUMBER if extent_mm is None else _number_cell(max(extent_mm), 1)
    yield _NO_NUMBER if volume_mm3 is None else _number_cell(volume_mm3, 0)


def _number_cell(value: float, digits: int) -> Html:
    return element("td", number(value, digits), data_key=repr(float(value)), class_="number")


def _warnings(lesion: ReportedLesion) -> Html:
    if not lesion.notices:
        return _NOTHING
    codes = dict.fromkeys(notice.code for notice in lesion.notices)
    return element("td", join([code(one) for one in codes], " "))
