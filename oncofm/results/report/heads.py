"""The heads that were asked: what they predict, and how far they can be trusted."""

from oncofm.biomarkers.card import Figure, HeadCard, Threshold
from oncofm.results.report.markup import Html, element, isolated, join, text
from oncofm.results.report.numbers import number
from oncofm.results.report.run import fact_list


def heads_section(heads: tuple[HeadCard, ...]) -> Html:
    """Say what each head predicts and how far it can be trusted; empty without heads."""
    if not heads:
        return Html()
    cards = [_head_card(card) for card in heads]
    return element(
        "section", element("h2", "Heads"), element("div", *cards, class_="heads"), id="heads"
    )


def _head_card(card: HeadCard) -> Html:
    facts = {
        "Predicts": ", ".join(card.classes) or quantity(card),
        "Performance": _performance(card),
        "Intended use": card.intended_use,
        "Limits": card.limits or "The card of this head names none.",
        "Licence": card.licence,
    }
    if card.threshold is not None:
        chosen = element("span", f"; chosen: {card.threshold.chosen}")
        facts["Threshold"] = join([threshold_text(card, card.threshold), chosen])
    return element(
        "article",
        element("h3", isolated(card.title)),
        element("p", isolated(card.name), class_="quiet"),
        fact_list(facts),
    )


def quantity(card: HeadCard) -> str:
    """Name the one value of a head, with its unit."""
    if card.kind == "cox" and card.quantity == "value":
        return "log hazard ratio"
    return card.quantity if card.unit == "1" else f"{card.quantity}, {card.unit}"


def threshold_text(card: HeadCard, threshold: Threshold) -> Html:
    """Say which side of the threshold is high risk."""
    side = "above" if card.direction == "higher_is_worse" else "below"
    what = f"P({card.classes[-1]})" if card.classes else quantity(card)
    shown = number(threshold.value)
    return join([text(f"High risk where {what} is {side} "), shown])


def _performance(card: HeadCard) -> Html:
    """Show the figure that matters most: on other data, else on held-out folds."""
    kind = "external data" if card.external else "cross-validated"
    figures = card.external or card.cross_validated
    if not figures:
        return element("span", "The card of this head has no figures.")
    return _figure(figures[0], kind)


def _figure(figure: Figure, kind: str) -> Html:
    return join(
        [
            element("strong", f"{figure.statistic} ", number(figure.value, 3)),
            element("span", " (95 % CI "),
            number(figure.ci_low, 3),
            element("span", " to "),
            number(figure.ci_high, 3),
            element("span", f"), n = {figure.n}, {kind}: {figure.data}. {figure.method}"),
        ]
    )
