"""Render a template as one HTML file that loads nothing and takes neither markup nor script from data."""

import base64
import hashlib
from datetime import UTC, datetime
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from pipeline import __version__
from pipeline.console.numbers import UNDEFINED, change, interval, number, percent, printable, signed


def render(template: str, **context: Any) -> str:
    """Render a file of `templates/`, with the style and the script inlined.

    Everything in the context is escaped. The page's Content-Security-Policy allows only this style and this script, by
    their hashes, and pictures inside the page.
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
    # JSON can hold lone surrogates, which UTF-8 cannot.
    return page.encode("utf-8", "backslashreplace")


def literal(text: object, most: int = 240) -> str:
    """Data made safe to show: control codes and changes of direction escaped, cut after `most` characters."""
    shown = printable(str(text))
    return shown if len(shown) <= most else f"{shown[:most]}…"


def infinity(value: float) -> str:
    """A number as JavaScript reads it."""
    return str(value).replace("inf", "Infinity")


def duration(seconds: float) -> str:
    """Seconds as text for people."""
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
    """An element id made from data. It contains no character of the data."""
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
    filters = (anchor, change, duration, infinity, interval, literal, moment, number, percent, signed)
    environment.filters |= {function.__name__: function for function in filters}
    return environment


@cache
def _asset(name: str) -> str:
    loader = _environment().loader
    assert loader, "the environment is made with one"
    return loader.get_source(_environment(), name)[0]


def _hash_source(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
