"""The report of a batch as a page: what it says, how long it is, and what it leaves alone."""

import hashlib
from base64 import b64encode

import numpy as np
import pytest
from results.pages import BINARY, CARD, HEADS, SURVIVAL, manifest, parse

from oncofm.biomarkers.card import HeadCard
from oncofm.results.manifest import RESEARCH_USE, Attempt
from oncofm.results.report import (
    BatchPage,
    Distribution,
    Download,
    Example,
    HeadFigures,
    ReasonGroup,
    render_batch_report,
)
from oncofm.workflow.batch.meter import sum_up

HOSTILE = '<script>alert(1)</script>"&\x00\u202e'


def attempt(number=1, **changes):
    facts = {
        "started_at": f"2026-02-03T0{number}:00:00+00:00",
        "ended_at": f"2026-02-03T0{number}:30:00+00:00",
        "n_cases": 100,
        "n_lesions": 250,
        "n_workers": 4,
        "seconds": 1000.0,
        "waiting_s": 100.0,
        "writing_s": 50.0,
        "reading_s": 3000.0,
        "held_up_s": 500.0,
        "bytes_read": 2**34,
        "peak_memory_mib": {"main": 1400.0 + number, "reader": 300.0},
    }
    return Attempt(**(facts | changes))


def spread(values, low=0.0, high=1.0):
    counts, _ = np.histogram(values, 10, (low, high))
    quantiles = np.percentile(values, (5, 25, 50, 75, 95))
    return Distribution(low, high, tuple(counts.tolist()), tuple(quantiles.tolist()))


def figures(card=BINARY, n=100):
    values = np.linspace(0, 1, n)
    outputs = tuple((name, spread(values)) for name in card.outputs)
    groups = {"high": n // 4, "low": n - n // 4}
    return HeadFigures(card, n, outputs, groups, spread(100 * values, 0.0, 100.0), 3)


def group(n=7, n_examples=5, level="case", state="failed", reason="time_limit", text="Too slow."):
    examples = tuple(Example(f"1.2.{i}", f"item-{i}", text) for i in range(n_examples))
    return ReasonGroup(level, state, reason, n, examples)


ATTEMPTS = (attempt(1), attempt(2))


def page(attempts=ATTEMPTS, **changes):
    content = {
        "manifest": manifest(250, 10, 2).model_copy(update={"throughput": sum_up(attempts)}),
        "heads": (figures(),),
        "reasons": (group(),),
        "slowest": (("1.2.7", 12.5), ("1.2.8", 3.25)),
        "downloads": (Download("cases.csv", "every case"),),
        "n_left": 0,
    }
    return BatchPage(**(content | changes))


def rendered(**changes):
    return parse(render_batch_report(page(**changes)))


def test_what_it_says_of_throughput_is_the_manifest():
    section = rendered().only(id="throughput")
    facts = section.facts
    assert [float(node["value"]) for node in section.every("data")][:3] == [0.1, 0.25, 2000.0]
    assert facts["Workers"].text == "4"
    assert facts["Peak memory, main process"].numbers == [1402.0]
    assert facts["Peak memory, reader process"].numbers == [300.0]
    assert facts["Read"].numbers == [32.0]
    assert facts["Readers worked"].numbers == [6000.0]
    assert "Most of the time went to the encoder" in section.text
    shares = [node.text for node in section.only(class_="shares").every("li")]
    assert shares == ["waiting for readers 10 %", "encoding 85 %", "writing 5 %"]
    assert "Slowest to read" in section.text
    assert "1.2.712.50 s" in section.text
    assert section.text.count("2026-02-03 0") == 2 + 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"waiting_s": 900.0}, "Most of the time went to the readers"),
        ({"writing_s": 900.0, "waiting_s": 0.0}, "Most of the time went to writing the results"),
        (
            {"waiting_s": 900.0, "reading_s": None, "held_up_s": None, "bytes_read": None},
            "Most of the time went to the workers of the cluster",
        ),
    ],
)
def test_what_limited_it(changes, words):
    section = rendered(attempts=(attempt(**changes),)).only(id="throughput")
    assert words in section.text
    assert "Attempts" not in section.text


def test_without_work_there_is_no_throughput():
    root = rendered(attempts=())
    assert not list(root.every(id="throughput"))
    assert "Throughput" not in root.only("nav").text


def test_reasons_with_their_first_cases():
    groups = (group(), group(1, 1, "series", "rejected", "not_ct", "Series is MR."))
    section = rendered(reasons=groups, n_left=3).only(id="reasons")
    first, second = section.every("details")
    assert "7 cases" in first.text
    assert "and 2 more" in first.text
    assert len(list(first.every("li"))) == 5
    assert "item item-4" in first.text
    assert "1 series" in second.text
    assert "more" not in second.text
    assert "3 items are not computed yet; the same command with --resume goes on." in section.text
    assert "cases.csv" in section.text
    assert not list(rendered(reasons=()).every(id="reasons"))
    assert "1 item is not computed" in rendered(reasons=(), n_left=1).only(id="reasons").text


def test_distributions_are_drawn_and_in_numbers():
    card = next(rendered().only(id="predictions").every("article"))
    svgs = list(card.every("svg"))
    assert len(svgs) == 4  # two classes, risk groups, percentiles
    assert all(node["role"] == "img" and node["aria-label"] for node in svgs)
    heights = [float(bar["height"]) for bar in svgs[0].every("rect", class_="value")]
    assert max(heights) == 48.0
    assert len(heights) == 10
    cells = [node.text for node in card.every("td", class_="number")]
    assert cells[:5] == ["0.050", "0.250", "0.500", "0.750", "0.950"]
    (mark,) = svgs[1].every("rect", class_="threshold")
    assert float(mark["x"]) == pytest.approx(240 * 0.5625)
    assert not list(svgs[0].every("rect", class_="threshold"))
    assert "high risk group (25) 25 %" in card.text
    assert "3 of 100 lesions lie above 99" in card.text
    assert "3 out of distribution" in card.text


def test_a_head_that_said_nothing_and_one_without_threshold():
    heads = (HeadFigures(SURVIVAL, 0), figures(SURVIVAL))
    first, second = rendered(heads=heads).only(id="predictions").every("article")
    assert "It said nothing about any lesion." in first.text
    assert "log hazard ratio" in second.text
    assert "risk group" not in second.text


def test_it_is_for_research_and_names_random_weights():
    words = "RANDOM WEIGHTS (seed 0): the features have no meaning"
    plain = rendered()
    assert RESEARCH_USE in plain.only("header").text
    assert not list(plain.every(class_="alarm"))
    random = manifest(1, weights=words)
    assert words in rendered(manifest=random).only(class_="alarm").text


def test_it_loads_nothing_and_runs_nothing():
    source = render_batch_report(page())
    root = parse(source)
    assert not list(root.every("script"))
    (policy,) = [node["content"] for node in root.every("meta") if "http-equiv" in node.attributes]
    style = hashlib.sha256(root.only("style").text.encode()).digest()
    assert policy == (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src 'sha256-{b64encode(style).decode()}'; script-src 'none'"
    )
    assert "http://" not in source
    assert "https://" not in source
    assert [node["href"] for node in root.only(id="files").every("a")] == ["./cases.csv"]


def test_what_comes_from_outside_is_text():
    examples = (Example(HOSTILE, HOSTILE + "2", HOSTILE),)
    card = BINARY.model_copy(update={"title": HOSTILE, "classes": (HOSTILE, "b")})
    root = rendered(
        reasons=(ReasonGroup("case", "failed", "time_limit", 1, examples),),
        heads=(figures(card),),
        slowest=((HOSTILE, 1.0),),
    )
    assert not list(root.every("script"))
    assert root.text.count("<script>alert(1)</script>") >= 6
    assert "\x00" not in root.text
    assert "\u202e" not in root.text


def test_its_length_is_bounded_whatever_is_in_it():
    long = "Ä<" * 5000
    groups = tuple(
        ReasonGroup("file", "rejected", f"{long}{n}", 10**6, (Example(long, long + "x", long),) * 5)
        for n in range(1000)
    )
    names = tuple(f"{n}-{long}" for n in range(500))
    card = HeadCard(name="many", title=long, kind="one_vs_rest", classes=names, **CARD)
    attempts = tuple(attempt(seconds=float(n)) for n in range(1000))
    source = render_batch_report(page(attempts, reasons=groups, heads=(figures(card),)))
    assert len(source.encode()) < 8e6
    assert "800 more reasons are there only." in source
    assert "980 earlier attempts are in run.json only." in source
    assert "470 more classes are in predictions.csv only." in source


def test_the_same_page_is_the_same_text():
    assert render_batch_report(page(heads=tuple(figures(card) for card in HEADS))) == (
        render_batch_report(page(heads=tuple(figures(card) for card in HEADS)))
    )
