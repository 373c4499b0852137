"""Numbers and data as text for people: in the terminal, in logs and in pages."""

import math

UNDEFINED = "–"  # noqa: RUF001 (a dash for people)


def number(value: float | None) -> str:
    """A measured number: four digits, an integer in full; a dash if there is none."""
    if value is None or math.isnan(value):
        return UNDEFINED
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def as_given(value: float) -> str:
    """A number that somebody wrote, such as a limit, as they wrote it."""
    return f"{value:.12g}"


def signed(value: float | None) -> str:
    """A number as `number` gives it, with its sign."""
    return f"{'+' if value and value > 0 else ''}{number(value)}"


def interval(low: float, high: float) -> str:
    """The ends of an interval, as `signed` gives them; a dash if there is none."""
    return UNDEFINED if math.isnan(low) else f"{signed(low)} to {signed(high)}"


def percent(share: float | None) -> str:
    """A share as a percentage of three digits. A share above zero never shows as 0 %."""
    return UNDEFINED if share is None else f"{100 * share:.3g} %"


def change(relative: float | None) -> str:
    """A relative change as a signed percentage."""
    if relative is None:
        return UNDEFINED
    return f"{100 * relative:+.3g} %" if relative else "±0"


def printable(data: str) -> str:
    """The data with every character escaped that would not show."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in data)
