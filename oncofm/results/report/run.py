"""What ran: how it ended, and with which model."""

from oncofm.results.manifest import RunManifest
from oncofm.results.report.markup import Html, code, element, isolated, join
from oncofm.results.report.numbers import number
from oncofm.results.report.states import STATES, state_badge

_RANDOM = "RANDOM WEIGHTS"
"""How `oncofm.results.manifest.describe_weights` begins for them."""

_ENDINGS = {
    0: "Everything is done.",
    2: "Some of it is not done; the reasons are below.",
    3: "No case is done; the reasons are below.",
}
"""Exit codes in words."""


def has_random_weights(manifest: RunManifest) -> bool:
    """Whether the features of a run have no meaning."""
    return manifest.model.weights.startswith(_RANDOM)


def weights_warning(manifest: RunManifest) -> Html:
    """Warn of random weights; empty for real ones."""
    if not has_random_weights(manifest):
        return Html()
    sentence = (
        "This run used random numbers in place of a trained model. No feature and no prediction "
        "on this page says anything about a lesion."
    )
    return element(
        "div", element("strong", manifest.model.weights), element("p", sentence), class_="alarm"
    )


def run_section(manifest: RunManifest) -> Html:
    """Say how the run ended, and what it ran with."""
    model, summary = manifest.model, manifest.summary
    ending = _ENDINGS.get(summary.exit_code, "The run did not end as it should.")
    tiles = element(
        "div",
        _tile("Cases", summary.cases),
        _tile("Lesions", summary.lesions),
        _left_out_tile(summary.left_out),
        class_="tiles",
    )
    facts = {
        "Software": f"{manifest.software.name} {manifest.software.version}",
        "Model": f"{model.name} ({model.licence})",
        "Weights": model.weights,
        "Weights SHA-256": code(model.weights_sha256),
        "Preprocessing profile": manifest.configuration.profile,
        "Device": f"{model.device}, {model.engine}",
        "Precision": model.precision,
        "Configuration hash": code(manifest.configuration_hash),
        "Time": _seconds(manifest.seconds),
        "Peak memory": number(manifest.peak_memory_mib, 0, "MiB"),
        "Finished": moment(manifest.finished_at),
    }
    return element(
        "section",
        element("h2", "Run"),
        element(
            "p", f"{ending} ", element("span", f"Exit code {summary.exit_code}", class_="quiet")
        ),
        tiles,
        fact_list(facts),
        id="run",
    )


def moment(iso: str) -> Html:
    """Show a UTC time of the manifest."""
    words = iso.replace("T", " ").replace("+00:00", " UTC")
    return element("time", words, datetime=iso)


def fact_list(facts: dict[str, str]) -> Html:
    """Names and what they are; text from outside keeps to itself."""
    pairs = (
        element("div", element("dt", name), element("dd", _foreign(value)))
        for name, value in facts.items()
    )
    return element("dl", *pairs, class_="facts")


def _tile(name: str, counts: dict[str, int]) -> Html:
    total = sum(counts.values())
    rows = [
        element("li", state_badge(state), element("span", str(counts[state]), class_="count"))
        for state in STATES
        if counts.get(state) and state != "done"
    ]
    return element(
        "div",
        element("h3", name),
        element(
            "p", element("strong", str(counts.get("done", 0))), f" of {total} done", class_="big"
        ),
        element("ul", *rows),
    )


def _left_out_tile(left_out: dict[str, int]) -> Html:
    rows = [
        element("li", code(reason), element("span", str(n), class_="count"))
        for reason, n in sorted(left_out.items())
    ]
    return element(
        "div",
        element("h3", "Inputs left out"),
        element("p", element("strong", str(sum(left_out.values()))), class_="big"),
        element("ul", *rows),
    )


def _seconds(seconds: dict[str, float]) -> Html:
    parts = ", ".join(
        f"{name.replace('_', ' ')} {value:.1f} s"
        for name, value in seconds.items()
        if name != "total"
    )
    total = number(seconds.get("total", sum(seconds.values())), 1, "s")
    return join([total, element("span", f" ({parts})" if parts else "", class_="quiet")])


def _foreign(value: str) -> Html:
    return value if isinstance(value, Html) else isolated(value)
