"""JSON files, local or in a store: read them, and the layout in which they are written."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from transforms.storage.whole_files import read_file

_INTEGERS = re.compile(r"\[\n[\s\d,-]+\]")


def read_json(path: str) -> dict[str, Any]:
    """The content of a JSON file, local or in a store.

    Raises:
        READ_ERRORS: (of `storage.errors`) it cannot be read.
        ValueError: it is not JSON, or is nested too deeply.
    """
    text = read_file(path)
    try:
        content: dict[str, Any] = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return content


def _finite(text: str) -> float:
    """The number. Python's parser takes NaN and Infinity, and reads 1e999 as infinity, but JSON has neither."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"it holds {text}, which is not a finite number")
    return number


def to_json(value: Mapping[str, Any]) -> bytes:
    """Indented JSON with each list of integers on one line. Values that JSON lacks, such as dates, become text."""
    text = json.dumps(value, indent=1, allow_nan=False, default=str) + "\n"
    # Strings in JSON hold no line breaks, so only lists match.
    return _INTEGERS.sub(lambda integers: re.sub(r"\s+", "", integers[0]), text).encode()
