"""Say in one line why an engine broke off a run.

Engines wrap a worker's Python exception in tracebacks of their own, Flink's in Java's as well; what matters is the
worker's last word.
"""

import re

# `apache_beam.io.filesystem.BeamIOError: Match operation failed`, at the beginning of a line.
_EXCEPTION = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?([A-Z]\w*(?:Error|Exception)): (.*)", re.MULTILINE)


def explain(text: str) -> str:
    """The reason in an engine's error message, in one line, with a remedy where one is known."""
    reason = _reason(text)
    for pattern, remedy in _REMEDIES.items():
        if re.search(pattern, text):
            return f"{reason}. {remedy}"
    return reason


def _reason(text: str) -> str:
    return " ".join(text.split())


_REMEDIES: dict[str, str] = {}
