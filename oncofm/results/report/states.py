"""How states look: a word, a sign and a colour, never a colour alone."""

from oncofm.results.report.markup import Html, element

STATES = ("done", "partial", "rejected", "failed")
_SIGNS = {"done": "✓", "partial": "◐", "rejected": "⊘", "failed": "✕"}


def state_badge(state: str) -> Html:
    """Show a state of a case or a lesion."""
    sign = element("span", _SIGNS[state], aria_hidden="true")
    return element("span", sign, f" {state}", class_=f"badge {state}")


def badge(words: str, kind: str) -> Html:
    """Show words as a badge; `kind` is one of the style sheet's."""
    return element("span", words, class_=f"badge {kind}")
