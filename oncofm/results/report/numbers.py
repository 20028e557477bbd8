"""Numbers for people, with the exact value in the markup."""

from oncofm.results.report.markup import Html, element

_MOST_PLAIN = 1e6


def fixed(value: float, digits: int) -> str:
    """Write a number with so many decimals, a huge one in powers of ten."""
    return f"{value:.{digits}f}" if abs(value) < _MOST_PLAIN else f"{value:.3g}"


def number(value: float, digits: int = 3, unit: str = "") -> Html:
    """Show a number rounded; the ``value`` of the element reads back to the same float."""
    return element("data", f"{fixed(value, digits)} {unit}".rstrip(), value=repr(float(value)))


def percent(share: float) -> Html:
    """Show a share as a percentage."""
    return element("data", f"{100 * share:.1f} %", value=repr(float(share)))


def count(n: int, one: str, many: str = "") -> str:
    """Say how many there are of something."""
    return f"{n} {one if n == 1 else many or one + 's'}"
