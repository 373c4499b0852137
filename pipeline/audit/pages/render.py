"""Make one self-contained HTML file of a template: no request, no markup out of data, no script but our own."""

import base64
import hashlib
import math
from datetime import UTC, datetime
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from pipeline import __version__

UNDEFINED = "–"  # noqa: RUF001 (a dash for people)


def render(template: str, **context: Any) -> str:
    """The page of a template of `templates/`, with the style and the script inlined.

    Everything in the context is escaped. The page's Content-Security-Policy admits this style and this script by
    their hashes, pictures inside the page, and nothing else.
    """
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash_source(style)}'; script-src '{_hash_source(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    written = datetime.now(UTC)
    inlined = {"style": Markup(style), "script": Markup(script), "policy": policy}
    return _environment().get_template(template).render(**inlined, version=__version__, written=written, **context)


def encode(page: str) -> bytes:
    """The content of the page's file."""
    # A lone surrogate, which JSON lets through, has no UTF-8.
    return page.encode("utf-8", "backslashreplace")


def literal(text: object, most: int = 240) -> str:
    """Data as it may be shown: control codes and changes of direction escaped, cut after `most` characters."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return shown if len(shown) <= most else f"{shown[:most]}…"


def number(value: float | None) -> str:
    """A number to four digits; a dash for one that is not there."""
    if value is None or math.isnan(value):
        return UNDEFINED
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def percent(share: float | None) -> str:
    """A share as a percentage of three digits; what is more than nothing is never shown as 0 %."""
    if share is None:
        return UNDEFINED
    return f"{100 * share:.3g} %"


def signed(value: float | None) -> str:
    """A number as `number` gives it, with its sign."""
    return f"{'+' if value and value > 0 else ''}{number(value)}"


def infinity(value: float) -> str:
    """A number as JavaScript reads it."""
    return str(value).replace("inf", "Infinity")


def change(relative: float | None) -> str:
    """A relative change as a signed percentage."""
    if relative is None:
        return UNDEFINED
    return f"{100 * relative:+.3g} %" if relative else "±0"


def duration(seconds: float) -> str:
    """Seconds for people."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"


def moment(value: float | datetime | None) -> str:
    """Seconds since the epoch as a date and time in UTC, for people."""
    if value is None:
        return UNDEFINED
    when = value if isinstance(value, datetime) else datetime.fromtimestamp(value, UTC)
    return f"{when:%Y-%m-%d %H:%M} UTC"


def anchor(text: str) -> str:
    """A name for an element to link to, made of data: no character of the data is in it."""
    return f"pair-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.audit.pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (anchor, change, duration, infinity, literal, moment, number, percent, signed)
    environment.filters |= {function.__name__: function for function in filters}
    return environment


@cache
def _asset(name: str) -> str:
    loader = _environment().loader
    assert loader, "the environment is made with one"
    return loader.get_source(_environment(), name)[0]


def _hash_source(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
