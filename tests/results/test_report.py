"""The report of a run as a reader of HTML sees it."""

import base64
import hashlib
import time
from collections import Counter
from dataclasses import replace

import pytest
from results.pages import (
    AGE,
    BINARY,
    HEADS,
    SITES,
    SURVIVAL,
    WEIGHTS_SHA256,
    done,
    manifest,
    page,
    parse,
    predictions,
    rejected,
)

from oncofm.biomarkers.predictions import Prediction
from oncofm.notices import Notice
from oncofm.results.manifest import RESEARCH_USE
from oncofm.results.report import Download, LeftOut, Preview, ReportedCase, render_report
from oncofm.results.report.limits import MOST_CHARACTERS, MOST_LEFT_OUT, MOST_PREVIEW_BYTES
from oncofm.seeds.seed import Seed, SeedSource

PICTURE = "data:image/webp;base64,UklGRg=="


def rendered(**changes):
    return parse(render_report(page(**changes)))


def one(lesion, **changes):
    """The card of a lesion, and its row."""
    root = rendered(lesions=(lesion,), **changes)
    return root.only("article", class_="lesion"), root.only("tr", data_number="1")


# --- the run ------------------------------------------------------------------------------


def test_the_statement_stands_before_everything():
    body = rendered().only("body")
    assert RESEARCH_USE in body.only("header", class_="statement").text
    assert [child.tag for child in body.children] == ["a", "header", "main", "script"]


def test_random_weights_are_loud():
    words = "RANDOM WEIGHTS (seed 3): the features have no meaning"
    root = rendered(manifest=manifest(weights=words))
    assert words in root.only("div", class_="alarm").text
    assert "Random weights" in root.only("header", class_="statement").text
    real = rendered()
    assert not list(real.every("div", class_="alarm"))
    assert "Random" not in real.only("header", class_="statement").text


def test_the_run_is_described():
    run = rendered().only("section", id="run")
    text = {name: node.text for name, node in run.facts.items()}
    assert text["Weights SHA-256"] == WEIGHTS_SHA256
    assert text["Configuration hash"] == "cd" * 32
    assert text["Software"] == "oncofm 9.8.7"
    assert text["Model"] == "fmcib (MIT)"
    assert text["Weights"] == "w.torch"
    assert text["Device"] == "cuda:0, torch"
    assert (text["Preprocessing profile"], text["Precision"]) == ("paper", "bf16")
    assert run.facts["Time"].numbers == [12.5]
    assert "discover 1.2 s" in text["Time"]
    assert run.facts["Peak memory"].numbers == [345.6]
    assert text["Finished"] == "2026-02-03 04:05:06 UTC"
    cases, lesions, left_out = (tile.text for tile in run.only("div", class_="tiles").children)
    assert "1 of 1 done" in cases
    assert "3 of 4 done" in lesions
    assert "rejected1" in lesions.replace(" ", "")
    assert "not_ct" in left_out
    assert "3" in left_out


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "Everything is done."), (2, "Some of it is not done"), (3, "No case is done")],
)
def test_exit_codes_in_words(code, words):
    text = rendered(manifest=manifest(code=code)).only("section", id="run").text
    assert words in text
    assert f"Exit code {code}" in text


def test_heads_with_what_they_are_good_for():
    root = rendered()
    binary, sites, _, age = root.only("section", id="heads").every("article")
    assert binary.facts["Performance"].numbers == [0.8641, 0.7912, 0.9213]
    for words in ("95 % CI", "n = 169", "held-out nodules", "DeLong", "external"):
        assert words in binary.facts["Performance"].text
    for name, words in (
        ("Intended use", BINARY.intended_use),
        ("Limits", BINARY.limits),
        ("Licence", BINARY.licence),
        ("Predicts", "benign, malignant"),
        ("Threshold", "High risk where P(malignant) is above 0.562; chosen: Youden index"),
    ):
        assert binary.facts[name].text == words
    assert binary.facts["Threshold"].numbers == [0.5625]
    assert "no figures" in sites.facts["Performance"].text
    assert age.facts["Predicts"].text == "doubling time, d"


def test_without_external_data_the_folds_count():
    card = BINARY.model_copy(update={"cross_validated": BINARY.external, "external": ()})
    facts = rendered(heads=(card,), lesions=()).only("section", id="heads").facts
    assert "cross-validated" in facts["Performance"].text


def test_without_heads_and_lesions():
    root = rendered(heads=(), lesions=(), left_out=())
    assert "no lesion" in root.only("section", id="lesions").text
    assert {node["id"] for node in root.every("section") if "id" in node.attributes} == {
        "run",
        "lesions",
        "files",
    }


# --- lesions ------------------------------------------------------------------------------


def test_every_lesion_has_a_row_and_a_card():
    root = rendered(n_done=5, n_rejected=2)
    rows = list(root.only("table", id="lesion-table").only("tbody").every("tr"))
    cards = list(root.every("article", class_="lesion"))
    assert len(rows) == len(cards) == 7
    for row, card in zip(rows, cards, strict=True):
        link = row.only("a")
        assert link["href"] == f"#{card['id']}"
        assert link.text in card.only("h3").text
        assert row["data-state"] in card.only("header").text


def test_numbers_are_those_that_were_put_in():
    said = predictions(0.7265625)
    lesion = done(5, predictions=said)
    card, row = one(lesion)
    blocks = list(card.every("section", class_="prediction"))
    for block, prediction in zip(blocks, said, strict=True):
        numbers = set(block.numbers)
        assert set(prediction.values) <= numbers
        if prediction.stability:
            assert {*prediction.stability.mean, *prediction.stability.sd} <= numbers
        if prediction.training_percentile:
            assert prediction.training_percentile in numbers
    assert "0.727" in blocks[0].text
    assert "20 shifted seeds" in blocks[0].text
    assert card.facts["Seed, LPS"].numbers == list(lesion.seed.position_mm)
    assert card.facts["Extent"].numbers == list(lesion.seed.extent_mm)
    assert card.facts["Volume"].numbers == [lesion.seed.volume_mm3]
    assert card.facts["Outside the volume"].numbers == [0.125]
    assert "12.5 %" in card.facts["Outside the volume"].text
    chance, site, risk, days, size, volume = [
        float(cell["data-key"]) for cell in row.every("td") if "data-key" in cell.attributes
    ]
    assert (chance, risk, days) == (0.7265625, -0.37512345, 181.25)
    assert site == 1 + 1 - 0.7  # the second of the classes, the surest first
    assert size == max(lesion.seed.extent_mm)
    assert volume == lesion.seed.volume_mm3


def test_bars_are_as_long_as_probabilities():
    card, _ = one(done(1, predictions=predictions(0.8125)))
    first = next(card.every("section", class_="prediction"))
    benign, malignant = first.every("svg")
    assert [bar.only("rect", class_="value")["width"] for bar in (benign, malignant)] == [
        "18.75",
        "81.25",
    ]
    spread = malignant.only("rect", class_="spread")
    assert float(spread["x"]) == pytest.approx(100 * (0.8125 - 0.03126), abs=0.01)
    assert float(spread["width"]) == pytest.approx(200 * 0.03126, abs=0.01)
    middle = malignant.only("rect", class_="threshold")
    assert float(middle["x"]) + float(middle["width"]) / 2 == pytest.approx(56.25)
    assert not list(benign.every("rect", class_="threshold"))


def test_identity_of_a_lesion():
    card, row = one(done(4))
    text = {name: node.text for name, node in card.facts.items()}
    assert text["Case"] == "1.2.3"
    assert text["Study UID"] == "1.2.3.4"
    assert text["Annotation UID"] == "1.2.840.99"
    assert text["Segment number"] == "4"
    assert text["Tracking UID"] == "2.25.4"
    assert text["Marked by"] == "DICOM segmentation"
    assert "tumour" in card.only("h3").text
    assert "tumour" in row.text


def test_warnings_in_full_sentences():
    card, row = one(done(1))
    warnings = card.only("div", class_="warnings").text
    assert "Lesion 1 is larger than the patch." in warnings
    assert "lesion_exceeds_patch" in warnings
    assert "lesion_exceeds_patch" in row.text


def test_what_is_not_done_says_why():
    card, row = one(rejected(1))
    assert "Seed 1 lies outside; look at its coordinates." in card.only("p", class_="reason").text
    for text in (card.text, row.text):
        assert "seed_outside_volume" in text
        assert "rejected" in text
    assert card.facts["File"].text == "seeds.csv"
    assert not list(card.every("section", class_="prediction"))


@pytest.mark.parametrize(("percentile", "is_odd"), [(99.01, True), (99.0, False), (None, False)])
def test_out_of_distribution_badge(percentile, is_odd):
    said = Prediction(BINARY, (0.4, 0.6), "high", percentile)
    for part in one(done(1, predictions=(said,))):
        assert bool(list(part.every("span", class_="outlier"))) is is_odd
        assert "high risk" in part.text


@pytest.mark.parametrize(
    ("direction", "side"), [("higher_is_worse", "above"), ("higher_is_better", "below")]
)
def test_side_of_the_threshold(direction, side):
    threshold = {"threshold": BINARY.threshold, "direction": direction}
    card = SURVIVAL.model_copy(update=threshold)
    block, _ = one(done(1, predictions=(Prediction(card, (0.1,), "low"),)), heads=(card,))
    assert f"High risk where log hazard ratio is {side} 0.562" in block.text
    assert "low risk group" in block.text


def test_heads_are_matched_by_card():
    said = predictions()
    root = rendered(lesions=(done(1, predictions=(said[3], said[0])),))
    row = root.only("tr", data_number="1")
    cells = row.children[4:8]
    assert [cell.text == "–" for cell in cells] == [False, True, True, False]
    titles = [
        head.text
        for head in root.only(id="lesion-table").only("thead").every("th")
        if "head" in head["data-key"]
    ]
    expected = [head.title for head in (BINARY, SITES, SURVIVAL, AGE)]
    assert [title.startswith(name) for title, name in zip(titles, expected, strict=True)]


def test_pictures_have_words():
    lesion = done(1, preview=Preview((PICTURE + "a", PICTURE + "b", PICTURE + "c")))
    card, _ = one(lesion)
    pictures = list(card.every("img"))
    assert [picture["src"][-1] for picture in pictures] == ["a", "b", "c"]
    assert [picture["alt"].split()[0] for picture in pictures] == ["Axial", "Coronal", "Sagittal"]
    assert all("segment-1" in picture["alt"] for picture in pictures)
    assert {picture["loading"] for picture in pictures} == {"lazy"}


def test_a_missing_picture_is_a_sentence():
    card, _ = one(done(1, no_preview="There is no picture of segment-1: a slice is broken."))
    assert "a slice is broken." in card.only("p", class_="note").text
    assert not list(card.every("img"))


def test_lesions_that_are_not_on_the_page_are_counted():
    root = rendered(manifest=manifest(5000, 17), lesions=(done(1), done(2)))
    assert "5015 more lesions are in cases.csv only" in root.only("section", id="lesions").text


# --- what is left out, and files ----------------------------------------------------------


def test_left_out_inputs():
    items = (
        LeftOut("case", "1.2.3", "partial", "no_voxels", "1 of 2 lesions not done."),
        LeftOut("file", "a/b.dcm", "rejected", "unreadable_file", "File a/b.dcm is cut off."),
        LeftOut("output", "", "failed", "", "Case 1.2.3 has no report."),
    )
    section = rendered(left_out=items).only("section", id="left-out")
    rows = list(section.only("tbody").every("tr"))
    for row, item in zip(rows, items, strict=True):
        for words in (item.level, item.name, item.state, item.reason, item.message):
            assert words in row.text


def test_many_left_out_inputs_are_counted():
    item = LeftOut("file", "a", "rejected", "unreadable_file", "File a is cut off.")
    section = rendered(left_out=(item,) * (MOST_LEFT_OUT + 3)).only("section", id="left-out")
    assert len(list(section.only("tbody").every("tr"))) == MOST_LEFT_OUT
    assert "3 more rows are in cases.csv only" in section.text


def test_links_to_files_are_relative():
    names = ["features.csv", "sr/1.2 #?%\u202e.dcm", "//evil/x", "javascript:alert(1)"]
    section = rendered(downloads=tuple(Download(name, "x") for name in names)).only(id="files")
    assert [link["href"] for link in section.every("a")] == [
        "./features.csv",
        "./sr/1.2%20%23%3F%25%E2%80%AE.dcm",
        ".///evil/x",
        "./javascript%3Aalert%281%29",
    ]


# --- a page that is closed to the outside -------------------------------------------------


def test_nothing_is_loaded():
    lesion = done(1, preview=Preview((PICTURE,) * 3))
    root = rendered(lesions=(lesion,))
    for node in root.every():
        assert not {"style", "srcset", "action", "srcdoc"} & node.attributes.keys()
        assert not [name for name in node.attributes if name.startswith("on")]
        assert node.attributes.get("href", "#").startswith(("#", "./"))
        assert node.attributes.get("src", "data:image/webp;").startswith("data:image/webp;")
    for kind in ("style", "script"):
        source = root.only(kind).text
        for word in ("url(", "@import", "http:", "https:", "fetch", "import(", "innerHTML", "eval"):
            assert word not in source


def test_content_security_policy_allows_what_is_in_the_page_only():
    root = rendered()
    policy = root.only("meta", http_equiv="Content-Security-Policy")["content"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for kind in ("style", "script"):
        digest = hashlib.sha256(root.only(kind).text.encode()).digest()
        assert rules[f"{kind}-src"] == f"'sha256-{base64.b64encode(digest).decode()}'"


HOSTILE = {
    "script": "<script>alert(1)</script>",
    "attribute": '" onmouseover="alert(1)" x=\'',
    "image": "<img src=x onerror=alert(1)>",
    "end of script": "</script></style></title><!--",
    "comment": "]]> --> <![CDATA[",
    "entities": "&lt;b&gt; &#60; &amp",
    "right to left": "\u202egnp.exe\u2066 עברית \u200f",
    "long": "x" * 10_000,
    "combining": "a" + "\u0301" * 3000,
    "control": "a\x00b\x1b[31m\x7f\x9b\r\n\tc\u2028",
    "surrogates": "a\ud800b\udfffc\udc80",
    "template": "{{7*7}} ${alert(1)} %s {0}",
    "no characters": "\ufffe\uffff\ufeff",
}


def hostile_page(text: str):
    card = BINARY.model_copy(
        update={
            "name": text,
            "title": text,
            "classes": (f"{text}1", f"{text}2"),
            "intended_use": text,
            "limits": text,
            "licence": text,
            "threshold": BINARY.threshold.model_copy(update={"chosen": text}),
        }
    )
    linear = AGE.model_copy(update={"quantity": text, "unit": text})
    said = (Prediction(card, (0.5, 0.5), "low"), Prediction(linear, (float("inf"),)))
    source = SeedSource(text, text, text, text, 1, text, text, text, text, text, text, 1)
    seed = Seed(text, (1e300, -1e300, 0.0), source, (1e300, 1.0, 1.0), 1e300)
    case = ReportedCase(text, text, text, text)
    lesion = done(
        1, notices=(Notice(text, text),), predictions=said, preview=Preview((PICTURE,) * 3)
    )
    lesions = (
        replace(lesion, case=case, seed=seed),
        replace(rejected(1), case=case, reason=text, message=text, no_preview=text),
    )
    return page(
        heads=(card, linear),
        lesions=lesions,
        left_out=(LeftOut(text, text, "failed", text, text, text),),
        downloads=(Download(text, text),),
        manifest=manifest(weights=text),
    )


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_stays_text(kind):
    text = HOSTILE[kind]
    source = render_report(hostile_page(text))
    source.encode("utf-8")
    assert len(source) < 300_000
    assert not [char for char in source if ord(char) < 32 and char != "\n"]
    assert not set(source) & set("\x7f\x9b\u202e\u2066\u200f\u2028\ufeff\ufffe\uffff")
    root, harmless = parse(source), parse(render_report(hostile_page("harmless")))

    def shape(node):
        # A long name has a title, and a code of several words has places to break.
        return Counter(
            (child.tag, *sorted(child.attributes.keys() - {"title"}))
            for child in node.every()
            if child.tag != "wbr"
        )

    assert shape(root) == shape(harmless)
    if kind in ("script", "attribute", "image", "end of script", "comment", "entities", "template"):
        assert text in root.only("section", id="cards").text
        assert text in root.only("section", id="left-out").text
        assert text in root.only("section", id="heads").text


def test_long_text_is_cut_visibly():
    lesion = replace(rejected(1), message="word " * 1000)
    card, _ = one(lesion)
    message = card.only("p", class_="reason").only("bdi").text
    assert len(message) == MOST_CHARACTERS
    assert message.endswith("…")


# --- a page that everybody can use --------------------------------------------------------


def test_structure_for_assistive_software():
    root = rendered(lesions=(done(1, preview=Preview((PICTURE,) * 3)), rejected(1)))
    ids = [node["id"] for node in root.every() if "id" in node.attributes]
    assert len(ids) == len(set(ids))
    for node in root.every("a"):
        if node["href"].startswith("#"):
            assert node["href"][1:] in ids
    assert root.only("html")["lang"] == "en"
    assert len(list(root.every("h1"))) == 1
    assert all(head["scope"] in ("col", "row") for head in root.every("th"))
    table = root.only("table", id="lesion-table")
    assert table.only("caption").text
    heads = list(table.only("thead").every("th"))
    assert {head["aria-sort"] for head in heads} == {"none"}
    assert all(head.only("button")["type"] == "button" for head in heads)
    labelled = [node["aria-labelledby"] for node in root.every("article", class_="lesion")]
    assert set(labelled) <= set(ids)
    for field in ("input", "select"):
        assert any(list(label.every(field)) for label in root.every("label"))


def test_states_are_words_not_only_colours():
    root = rendered()
    for row in root.only("table", id="lesion-table").only("tbody").every("tr"):
        assert row["data-state"] in row.children[3].text


# --- size and speed -----------------------------------------------------------------------


def test_the_same_page_gives_the_same_text():
    assert render_report(page()) == render_report(page())


def test_a_thousand_lesions():
    lesions = tuple(done(number) for number in range(1, 1001))
    big = page(lesions=lesions, manifest=manifest(1000))
    start = time.process_time()
    source = render_report(big)
    assert time.process_time() - start < 10
    assert len(source.encode()) + MOST_PREVIEW_BYTES < 15e6
    assert big.heads == HEADS
