"""Small drawings: shares of a whole, and how numbers spread. Their numbers stand beside them."""

from oncofm.results.report.batch_content import Distribution
from oncofm.results.report.markup import Html, element, join
from oncofm.results.report.numbers import fixed, number

_WIDTH, _HEIGHT = 240, 48
_QUANTILES = ("5 %", "25 %", "median", "75 %", "95 %")


def histogram(spread: Distribution, label: str, mark: float | None = None) -> Html:
    """Draw a histogram, with a line at a value that matters.

    Parameters
    ----------
    spread : Distribution
        What to draw.
    label : str
        For those who do not see it.
    mark : float or None
        A threshold, drawn where it lies within the range.
    """
    width = _WIDTH / len(spread.counts)
    highest = max(1, *spread.counts)
    bars = [
        _rect("value", index * width + 0.5, _HEIGHT * (1 - n / highest), width - 1, n / highest)
        for index, n in enumerate(spread.counts)
        if n
    ]
    base = Html(f'<rect class="track" x="0" y="{_HEIGHT}" width="{_WIDTH}" height="1"></rect>')
    lines = [] if mark is None else _mark(spread, mark)
    svg = element(
        "svg",
        base,
        *bars,
        *lines,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT + 1}",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )
    ends = element(
        "p",
        element("span", number(spread.low, _digits(spread))),
        element("span", number(spread.high, _digits(spread))),
        class_="ends",
    )
    return element("div", svg, ends, class_="histogram")


def quantile_cells(spread: Distribution) -> Html:
    """Give the quantiles of a distribution as cells of a table."""
    return join([element("td", number(value), class_="number") for value in spread.quantiles])


def quantile_heads() -> Html:
    """Give the heads of those cells."""
    return join([element("th", name, scope="col", class_="number") for name in _QUANTILES])


def shares(parts: dict[str, float], label: str) -> Html:
    """Draw parts of a whole as pieces of one bar, with a legend that gives each in per cent."""
    whole = sum(parts.values())
    if whole <= 0:
        return Html()
    pieces, legend, x = [], [], 0.0
    for index, (name, value) in enumerate(parts.items()):
        width = 100 * value / whole
        pieces.append(
            Html(
                f'<rect class="part-{index}" x="{fixed(x, 2)}" y="0" width="{fixed(width, 2)}" '
                'height="12"></rect>'
            )
        )
        sample = element("span", class_=f"sample part-{index}")
        share = element("strong", f"{width:.0f} %")
        legend.append(element("li", sample, f"{name} ", share))
        x += width
    svg = element(
        "svg",
        *pieces,
        viewBox="0 0 100 12",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )
    return element("div", svg, element("ul", *legend), class_="shares")


def _mark(spread: Distribution, value: float) -> list[Html]:
    if not spread.low <= value <= spread.high or spread.low == spread.high:
        return []
    x = _WIDTH * (value - spread.low) / (spread.high - spread.low)
    return [
        Html(
            f'<rect class="threshold" x="{fixed(min(x, _WIDTH - 1), 2)}" y="0" width="1.5" '
            f'height="{_HEIGHT}"></rect>'
        )
    ]


def _rect(kind: str, x: float, y: float, width: float, share: float) -> Html:
    return Html(
        f'<rect class="{kind}" x="{fixed(x, 2)}" y="{fixed(y, 2)}" width="{fixed(width, 2)}" '
        f'height="{fixed(_HEIGHT * share, 2)}"></rect>'
    )


def _digits(spread: Distribution) -> int:
    span = spread.high - spread.low
    return 0 if span >= 20 else 2
