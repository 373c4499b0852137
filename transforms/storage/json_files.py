"""JSON files, local or `gs://`: read them, and the layout in which they are written."""

import json
import re
from collections.abc import Mapping
from typing import Any

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

_INTEGERS = re.compile(r"\[\n[\s\d,-]+\]")


def read_json(path: str) -> dict[str, Any]:
    """The content of a JSON file, local or `gs://`.

    Raises:
        READ_ERRORS: (of `storage.errors`) it cannot be read.
        ValueError: it is not JSON.
    """
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        content: dict[str, Any] = json.loads(file.read())
    return content


def to_json(value: Mapping[str, Any]) -> bytes:
    """Indented JSON with each list of integers on one line. Values that JSON lacks, such as dates, become text."""
    text = json.dumps(value, indent=1, allow_nan=False, default=str) + "\n"
    # Strings in JSON hold no line breaks, so only lists match.
    return _INTEGERS.sub(lambda integers: re.sub(r"\s+", "", integers[0]), text).encode()
