"""What a head says about one lesion, with how stable and how usual it is."""

from oncofm.biomarkers.card import CLASS_KINDS
from oncofm.biomarkers.predictions import OUTLIER_PERCENTILE, Prediction, Stability
from oncofm.results.report.heads import quantity, threshold_text
from oncofm.results.report.limits import MOST_NAME_CHARACTERS
from oncofm.results.report.markup import Html, element, isolated, join, printable, text
from oncofm.results.report.numbers import fixed, number
from oncofm.results.report.states import badge


def prediction_block(prediction: Prediction) -> Html:
    """Show a prediction: bars for probabilities, a number for a value."""
    card = prediction.card
    show = _classes if card.kind in CLASS_KINDS else _value
    return element(
        "section",
        element("h4", isolated(printable(card.title, MOST_NAME_CHARACTERS)), *_badges(prediction)),
        show(prediction),
        _remarks(prediction),
        class_="prediction",
    )


def _badges(prediction: Prediction) -> list[Html]:
    badges = []
    if prediction.risk_group is not None:
        words = f"{prediction.risk_group} risk group"
        badges.append(badge(words, f"risk-{prediction.risk_group}"))
    if prediction.is_outlier:
        badges.append(badge("out of distribution", "outlier"))
    return badges


def _classes(prediction: Prediction) -> Html:
    rows = []
    for index, (name, value) in enumerate(
        zip(prediction.card.classes, prediction.values, strict=True)
    ):
        cells = [
            element("th", isolated(printable(name, MOST_NAME_CHARACTERS)), scope="row"),
            element("td", _bar(prediction, index), class_="bar"),
            element("td", number(value), class_="number"),
        ]
        if prediction.stability is not None:
            cells.append(element("td", _spread(prediction.stability, index), class_="number"))
        rows.append(element("tr", *cells))
    caption = element("caption", "Probability of each class", class_="for-ears")
    head = element("thead", element("tr", *_class_columns(prediction)))
    return element("table", caption, head, element("tbody", *rows), class_="classes")


def _class_columns(prediction: Prediction) -> list[Html]:
    columns = [
        element("th", element("span", "class", class_="for-ears"), scope="col"),
        element("td"),
        element("th", "probability", scope="col"),
    ]
    if prediction.stability is not None:
        columns.append(element("th", "mean ± SD", scope="col"))
    return columns


def _bar(prediction: Prediction, index: int) -> Html:
    """Draw a probability, mean and SD of the shifted seeds, and the threshold."""
    parts = [_TRACK, _rect("value", 0, 100 * prediction.values[index], 3, 6)]
    stability = prediction.stability
    if stability is not None:
        mean, sd = stability.mean[index], stability.sd[index]
        low, high = max(0, mean - sd), min(1, mean + sd)
        parts.append(_rect("spread", 100 * low, 100 * (high - low), 5.25, 1.5))
    threshold = prediction.card.threshold
    if threshold is not None and index == len(prediction.values) - 1:
        parts.append(_rect("threshold", 100 * threshold.value - 0.25, 0.5, 0, 12))
    return element(
        "svg", *parts, viewBox="0 0 100 12", preserveAspectRatio="none", aria_hidden="true"
    )


def _rect(kind: str, x: float, width: float, y: float, height: float) -> Html:
    return Html(
        f'<rect class="{kind}" x="{fixed(x, 2)}" y="{y:g}" width="{fixed(width, 2)}" '
        f'height="{height:g}"></rect>'
    )


_TRACK = _rect("track", 0, 100, 3, 6)


def _value(prediction: Prediction) -> Html:
    card = prediction.card
    shown = number(prediction.values[0])
    return element(
        "p",
        element("strong", shown),
        " ",
        isolated(printable(quantity(card), MOST_NAME_CHARACTERS)),
        *_shifted_value(prediction),
        class_="value",
    )


def _shifted_value(prediction: Prediction) -> list[Html]:
    if prediction.stability is None:
        return []
    return [element("span", ", mean ± SD ", _spread(prediction.stability, 0), class_="quiet")]


def _spread(stability: Stability, index: int) -> Html:
    return join([number(stability.mean[index]), number(stability.sd[index])], " ± ")


def _remarks(prediction: Prediction) -> Html:
    sentences = []
    threshold = prediction.card.threshold
    if threshold is not None:
        sentences.append(join([threshold_text(prediction.card, threshold), text(".")]))
    if prediction.stability is not None:
        words = f"Mean and SD are those of {prediction.stability.n_shifts} shifted seeds."
        sentences.append(text(words))
    percentile = prediction.training_percentile
    if percentile is not None:
        sentences.append(
            join(
                [text("Training percentile "), number(percentile, 1), text(_usualness(prediction))]
            )
        )
    if not sentences:
        return Html()
    return element("p", join(sentences, " "), class_="remarks")


def _usualness(prediction: Prediction) -> str:
    if prediction.is_outlier:
        return (
            f": farther from the training data than {OUTLIER_PERCENTILE:g} % of it, so the head "
            "may not hold here."
        )
    return (
        " of 100, by the distance from the training data; above "
        f"{OUTLIER_PERCENTILE:g} is out of distribution."
    )
