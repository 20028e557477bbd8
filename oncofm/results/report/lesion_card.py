"""A card per lesion: pictures, predictions, and everything else that is known."""

from collections.abc import Iterator

from oncofm.results.overlay_drawing import PANEL_MM, PANEL_PX, PLANES, WINDOW_HU
from oncofm.results.report.content import Page, ReportedLesion
from oncofm.results.report.limits import MOST_NAME_CHARACTERS
from oncofm.results.report.markup import Html, code, element, isolated, join, printable
from oncofm.results.report.numbers import number, percent
from oncofm.results.report.prediction import prediction_block
from oncofm.results.report.run import fact_list
from oncofm.results.report.states import state_badge
from oncofm.seeds.measure import PATCH_EDGE_MM
from oncofm.seeds.seed import Seed

_KINDS = {
    "seg": "DICOM segmentation",
    "rtstruct": "DICOM structure set",
    "sr": "DICOM structured report",
    "mask": "label mask",
    "markup": "Slicer markup",
    "json": "JSON file",
    "table": "seed table",
}
"""`SeedSource.kind` in words."""


def cards_section(page: Page) -> Html:
    """Build the section with the cards; empty without lesions."""
    lesions = page.lesions
    if not lesions:
        return Html()
    cards = [_card(number_, lesion) for number_, lesion in enumerate(lesions, 1)]
    legend = _legend() if any(lesion.preview for lesion in lesions) else Html()
    return element("section", element("h2", "Details"), legend, *cards, id="cards")


def _legend() -> Html:
    black, white = WINDOW_HU
    marks = (
        ("seed", "seed"),
        ("cube", f"{PATCH_EDGE_MM:g} mm cube that the model sees"),
        ("extent", "size of the lesion, centred on the seed"),
        ("outside", "outside the volume"),
    )
    items = [
        element("li", element("span", class_=f"mark {kind}", aria_hidden="true"), words)
        for kind, words in marks
    ]
    items.append(
        element("li", f"{PANEL_MM:g} mm wide, window {black:g} to {white:g} HU", class_="quiet")
    )
    return element("ul", *items, class_="legend", aria_label="Marks in the pictures")


def _card(number_: int, lesion: ReportedLesion) -> Html:
    seed = lesion.seed
    label = seed.source.segment_label
    title = [_name(seed.lesion_id)]
    if label and label != seed.lesion_id:
        title.append(element("span", _name(label), class_="label"))
    return element(
        "article",
        element(
            "header",
            element("h3", join(title, " "), id=f"title-{number_}"),
            state_badge(lesion.state),
            element("a", "Back to the table", href="#lesions", class_="back"),
        ),
        _not_done(lesion),
        _preview(lesion),
        _predictions(lesion),
        _warnings(lesion),
        fact_list(dict(_facts(lesion))),
        class_=f"lesion {lesion.state}",
        id=f"lesion-{number_}",
        tabindex=-1,
        aria_labelledby=f"title-{number_}",
    )


def _name(name: str) -> Html:
    return isolated(printable(name, MOST_NAME_CHARACTERS))


def _not_done(lesion: ReportedLesion) -> Html:
    if not lesion.message:
        return Html()
    return element(
        "p", code(lesion.reason), " ", isolated(lesion.message), class_=f"reason {lesion.state}"
    )


def _preview(lesion: ReportedLesion) -> Html:
    if lesion.preview is None:
        if not lesion.no_preview:
            return Html()
        return element("p", isolated(lesion.no_preview), class_="note")
    name = printable(lesion.seed.lesion_id, MOST_NAME_CHARACTERS)
    figures = []
    for plane, source in zip(PLANES, lesion.preview.sources, strict=True):
        picture = element(
            "img",
            src=Html(source),
            alt=f"{plane.name.capitalize()} plane through the seed of {name}, {plane.viewpoint}",
            width=PANEL_PX,
            height=PANEL_PX,
            loading="lazy",
            decoding="async",
        )
        caption = element("figcaption", plane.name, ", ", plane.viewpoint)
        figures.append(element("figure", picture, caption))
    return element("div", *figures, class_="preview")


def _predictions(lesion: ReportedLesion) -> Html:
    if not lesion.predictions:
        return Html()
    return element("div", *map(prediction_block, lesion.predictions), class_="predictions")


def _warnings(lesion: ReportedLesion) -> Html:
    if not lesion.notices:
        return Html()
    items = [
        element("li", isolated(notice.message), " ", code(notice.code)) for notice in lesion.notices
    ]
    return element("div", element("h4", "Warnings"), element("ul", *items), class_="warnings")


def _facts(lesion: ReportedLesion) -> Iterator[tuple[str, str]]:
    seed, case = lesion.seed, lesion.case
    if isinstance(seed, Seed):
        yield "Seed, LPS", _numbers(seed.position_mm, ", ")
        if seed.extent_mm is not None:
            yield "Extent", _numbers(seed.extent_mm, " × ")
        if seed.volume_mm3 is not None:
            yield "Volume", number(seed.volume_mm3, 0, "mm³")
    if lesion.padded_fraction is not None:
        yield (
            "Outside the volume",
            join([percent(lesion.padded_fraction), element("span", " of the patch")]),
        )
    yield "Case", code(case.case_id)
    if case.modality:
        yield "Modality", case.modality
    if case.series_uid and case.series_uid != case.case_id:
        yield "Series UID", code(case.series_uid)
    if case.study_uid:
        yield "Study UID", code(case.study_uid)
    yield from _source_facts(lesion)


def _source_facts(lesion: ReportedLesion) -> Iterator[tuple[str, str]]:
    source = lesion.seed.source
    yield "Marked by", _KINDS.get(source.kind, source.kind)
    if source.sop_instance_uid:
        yield "Annotation UID", code(source.sop_instance_uid)
    if source.file_name:
        yield "File", _name(source.file_name)
    if source.segment_number is not None:
        yield "Segment number", str(source.segment_number)
    if source.component is not None:
        yield "Component", str(source.component)
    if source.segment_description:
        yield "Description", source.segment_description
    if source.tracking_uid:
        yield "Tracking UID", code(source.tracking_uid)


def _numbers(values_mm: tuple[float, ...], between: str) -> Html:
    return join([join([number(value, 1) for value in values_mm], between), Html(" mm")])
