"""Metrics as text, CSV or JSON lines, for what does not read Parquet."""

import csv
import io
import json
import math
from collections.abc import Callable
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

# Spreadsheets take a cell that begins with one of these for a formula (OWASP, "CSV Injection").
_FORMULA = tuple("=+-@\t\r\n")


def metrics_text(metrics: pa.Table, format: str) -> bytes:
    """The table as a text file in UTF-8.

    `csv` is RFC 4180 with a header. A null is an empty cell, +inf is `inf`. Text that a spreadsheet would take for a
    formula has an apostrophe before it; numbers never have. `notes` are joined by `;`, other nested values are JSON.

    `jsonl` has one object per line. A null and a value that is not finite are null.

    In both, floats are the shortest decimals that are read back as the same value, and times are ISO 8601; those with
    a time zone are in UTC.

    Args:
        metrics: table of `metrics_schema`, perhaps with `optimization_fields`.
        format: `csv` or `jsonl`.

    Raises:
        KeyError: it is none of them.
    """
    return _WRITERS[format](metrics).encode()


def _csv(metrics: pa.Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(map(_guarded, metrics.column_names))
    writer.writerows(zip(*(_cells(column.combine_chunks()) for column in metrics.columns), strict=True))
    return text.getvalue()


def _jsonl(metrics: pa.Table) -> str:
    columns = (_plain(column.combine_chunks()) for column in metrics.columns)
    rows = zip(*columns, strict=True)
    return "".join(json.dumps(dict(zip(metrics.column_names, row, strict=True))) + "\n" for row in rows)


_WRITERS: dict[str, Callable[[pa.Table], str]] = {"csv": _csv, "jsonl": _jsonl}


def _cells(column: pa.Array) -> list[str | None]:
    dtype = column.type
    if pa.types.is_list(dtype) and pa.types.is_string(dtype.value_type):
        column = pc.binary_join(column, ";")
    elif pa.types.is_nested(dtype):
        return [None if value is None else json.dumps(value) for value in _plain(column)]
    if pa.types.is_string(column.type):
        return [None if value is None else _guarded(value) for value in column.to_pylist()]
    texts: list[str | None] = _texts(column).to_pylist()
    return texts


def _guarded(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _plain(column: pa.Array) -> list[Any]:
    """The values as JSON has them."""
    dtype = column.type
    if pa.types.is_list(dtype):
        items = iter(_plain(column.flatten()))
        lengths = pc.list_value_length(column).to_pylist()
        return [None if length is None else list(islice(items, length)) for length in lengths]
    if pa.types.is_struct(dtype):
        names = [field.name for field in dtype]
        rows = zip(*map(_plain, column.flatten()), strict=True)
        return [dict(zip(names, row, strict=True)) for row in rows]
    if pa.types.is_floating(dtype):
        # Not as Python's floats: those of a float32 0.1 have 17 digits.
        values = _texts(column).cast(pa.float64()).to_pylist()
        return [value if value is not None and math.isfinite(value) else None for value in values]
    plain: list[Any] = (_texts(column) if pa.types.is_temporal(dtype) else column).to_pylist()
    return plain


def _texts(column: pa.Array) -> pa.Array:
    """Scalars that are no strings, as strings."""
    dtype = column.type
    if not pa.types.is_timestamp(dtype):
        return column.cast(pa.string())
    # Arrow would look up the time zone, which may be missing on a worker, or unknown; without one, it gives UTC.
    texts = pc.replace_substring(column.cast(pa.timestamp(dtype.unit)).cast(pa.string()), " ", "T", max_replacements=1)
    return texts if dtype.tz is None else pc.binary_join_element_wise(texts, "Z", "")
