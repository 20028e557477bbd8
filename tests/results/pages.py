"""Reports to test with, and a parser that insists on closed elements."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

from oncofm.biomarkers.card import Figure, HeadCard, Threshold
from oncofm.biomarkers.predictions import Prediction, Stability
from oncofm.errors import SeedOutsideVolumeError
from oncofm.notices import Notice
from oncofm.results.manifest import Configuration, Inputs, Model, RunManifest, Software, Summary
from oncofm.results.report import Download, LeftOut, Page, ReportedCase, ReportedLesion
from oncofm.seeds.seed import RejectedSeed, Seed, SeedSource

VOID = {"br", "img", "input", "meta", "wbr"}
WEIGHTS_SHA256 = "ab" * 32


@dataclass
class Node:
    """An element of a parsed page."""

    tag: str
    attributes: dict[str, str | None] = field(default_factory=dict)
    children: "list[Node | str]" = field(default_factory=list)

    def __getitem__(self, name: str) -> str:
        return self.attributes[name] or ""

    def every(self, tag: str = "", **attributes: str):
        """Yield elements below this one by tag, id, class (one of them) or other attributes."""
        for child in self.children:
            if isinstance(child, Node):
                if child.fits(tag, attributes):
                    yield child
                yield from child.every(tag, **attributes)

    def fits(self, tag: str, attributes: dict[str, str]) -> bool:
        return tag in ("", self.tag) and all(
            value in (self.attributes.get(name.strip("_").replace("_", "-")) or "").split()
            for name, value in attributes.items()
        )

    def only(self, tag: str = "", **attributes: str) -> "Node":
        (found,) = self.every(tag, **attributes)
        return found

    @property
    def text(self) -> str:
        parts = (child if isinstance(child, str) else child.text for child in self.children)
        return "".join(parts)

    @property
    def numbers(self) -> list[float]:
        return [float(node["value"]) for node in self.every("data")]

    @property
    def facts(self) -> "dict[str, Node]":
        return {
            pair.only("dt").text: pair.only("dd") for pair in self.every("div") if pair.has_fact
        }

    @property
    def has_fact(self) -> bool:
        return [child.tag for child in self.children if isinstance(child, Node)] == ["dt", "dd"]


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Node("")
        self.open = [self.root]

    def handle_starttag(self, tag, attrs):
        node = Node(tag, dict(attrs))
        assert len(node.attributes) == len(attrs), f"an attribute of {tag} is there twice"
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag, f"{tag} is closed in the wrong place"

    def handle_data(self, data):
        self.open[-1].children.append(data)


def parse(page: str) -> Node:
    parser = _Parser()
    parser.feed(page)
    parser.close()
    assert parser.open == [parser.root], "an element is left open"
    return parser.root


CARD = {
    "model": "fmcib",
    "profile": "mhub",
    "weights_sha256": "any",
    "n_features": 4,
    "intended_use": "Tests of pages.",
    "limits": "Knows no patient.",
    "licence": "Apache-2.0",
}
FIGURE = Figure(
    statistic="AUC",
    value=0.8641,
    ci_low=0.7912,
    ci_high=0.9213,
    n=169,
    data="held-out nodules",
    method="DeLong",
)
BINARY = HeadCard(
    name="malignancy",
    title="Malignancy of a nodule",
    kind="logistic",
    classes=("benign", "malignant"),
    threshold=Threshold(value=0.5625, chosen="Youden index"),
    direction="higher_is_worse",
    external=(FIGURE,),
    **CARD,
)
SITES = HeadCard(
    name="site", title="Site", kind="one_vs_rest", classes=("lung", "liver", "bone"), **CARD
)
SURVIVAL = HeadCard(name="survival", title="Overall survival", kind="cox", **CARD)
AGE = HeadCard(
    name="doubling", title="Growth", kind="linear", quantity="doubling time", unit="d", **CARD
)
HEADS = (BINARY, SITES, SURVIVAL, AGE)


def predictions(chance: float = 0.8125) -> tuple[Prediction, ...]:
    said = (1 - chance, chance)
    group = "high" if chance > 0.5625 else "low"
    return (
        Prediction(BINARY, said, group, 99.53125, Stability(20, said, (0.03125, 0.03126))),
        Prediction(SITES, (0.2, 0.7, 0.1), None, 41.25),
        Prediction(SURVIVAL, (-0.37512345,), None, None, Stability(7, (-0.31,), (0.0625,))),
        Prediction(AGE, (181.25,)),
    )


def manifest(n_done: int = 0, n_rejected: int = 0, code: int = 0, weights: str = "w.torch"):
    counts = {"done": n_done, "partial": 0, "rejected": n_rejected, "failed": 0}
    return RunManifest(
        software=Software(name="oncofm", version="9.8.7", python="", platform="", packages={}),
        model=Model(
            name="fmcib",
            weights_sha256=WEIGHTS_SHA256,
            weights=weights,
            licence="MIT",
            engine="torch",
            device="cuda:0",
            precision="bf16",
            batch_size=8,
        ),
        configuration=Configuration(
            model="fmcib",
            weights_sha256=WEIGHTS_SHA256,
            profile="paper",
            precision="bf16",
            seed_kinds=(),
            labels=(),
            per="segment",
            min_volume_mm3=0,
            seg_threshold=0.5,
        ),
        configuration_hash="cd" * 32,
        inputs=Inputs(series_uids=["1.2.3"], segmentation_uids=[], n_files_skipped=2),
        summary=Summary(
            cases={"done": 1, "partial": 0, "rejected": 0, "failed": 0},
            lesions=counts,
            left_out={"not_ct": 3},
            exit_code=code,
        ),
        reports=None,
        seconds={"discover": 1.25, "total": 12.5},
        peak_memory_mib=345.6,
        finished_at="2026-02-03T04:05:06+00:00",
    )


def done(number: int, **changes) -> ReportedLesion:
    source = SeedSource(
        "seg",
        "1.2.840.99",
        segment_number=number,
        segment_label="tumour",
        tracking_uid=f"2.25.{number}",
    )
    size_mm = float(number * 7919 % 1009)
    seed = Seed(f"segment-{number}", (-1.5, 2.25, size_mm), source, (3.0, size_mm, 4.0), size_mm**3)
    notices = (Notice("lesion_exceeds_patch", f"Lesion {number} is larger than the patch."),)
    content = {
        "notices": notices,
        "padded_fraction": 0.125,
        "predictions": predictions((number * 37 % 101) / 128),
    } | changes
    return ReportedLesion(ReportedCase("1.2.3", "1.2.3.4", "1.2.3", "CT"), seed, "done", **content)


def rejected(number: int) -> ReportedLesion:
    error = SeedOutsideVolumeError(f"Seed {number} lies outside; look at its coordinates.")
    seed = RejectedSeed(f"point-{number}", SeedSource("table", file_name="seeds.csv"), error)
    return ReportedLesion(
        ReportedCase("scan.nii.gz"), seed, "rejected", "seed_outside_volume", str(error)
    )


def page(n_done: int = 3, n_rejected: int = 1, **changes) -> Page:
    lesions = [done(number) for number in range(1, n_done + 1)]
    lesions += [rejected(number) for number in range(1, n_rejected + 1)]
    content = {
        "manifest": manifest(n_done, n_rejected, 2 if n_rejected else 0),
        "heads": HEADS,
        "lesions": tuple(lesions),
        "left_out": (LeftOut("series", "1.9.9", "rejected", "not_ct", "Series is MR.", "MR"),),
        "downloads": (Download("features.csv", "features"), Download("sr/1-a.dcm", "SR")),
    } | changes
    return Page(**content)
