"""Metrics as text, CSV or JSON lines, for programs that do not read Parquet.

Both formats write floats as the shortest decimals that read back as the same value, and times in ISO 8601; times with a
time zone are in UTC.
"""

import csv
import io
import json
import math
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from transforms.summary.extreme_pairs import time_text

# Spreadsheets evaluate a cell that begins with one of these as a formula (OWASP, "CSV Injection").
_FORMULA = tuple("=+-@\t\r\n")


def to_csv(metrics: pa.Table) -> str:
    """CSV as in RFC 4180, with a header.

    A null is an empty cell, +inf is `inf`. Text that a spreadsheet would evaluate gets a leading apostrophe; numbers
    never do. `notes` are joined by `;`, other nested values are JSON.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(map(_guarded, metrics.column_names))
    writer.writerows(zip(*(_cells(column.combine_chunks()) for column in metrics.columns), strict=True))
    return text.getvalue()


def to_jsonl(metrics: pa.Table) -> str:
    """One JSON object per line. Values that are not finite become null, as nulls do."""
    columns = (_plain(column.combine_chunks()) for column in metrics.columns)
    rows = zip(*columns, strict=True)
    return "".join(json.dumps(dict(zip(metrics.column_names, row, strict=True))) + "\n" for row in rows)


# Each turns a table of `metrics_schema`, perhaps with `optimization_fields`, into text. Add a row to add a format.
TEXT_FORMATS = {"csv": to_csv, "jsonl": to_jsonl}
# Metrics are always written as Parquet, and as text beside it if asked for.
METRICS_FORMATS = ("parquet", *TEXT_FORMATS)


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
    """The values in the types of JSON."""
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
        # By way of Arrow's text: converted directly, a float32 of 0.1 would have 17 digits in Python.
        values = _texts(column).cast(pa.float64()).to_pylist()
        return [value if value is not None and math.isfinite(value) else None for value in values]
    plain: list[Any] = (_texts(column) if pa.types.is_temporal(dtype) else column).to_pylist()
    return plain


def _texts(column: pa.Array) -> pa.Array:
    """Scalars other than strings, as strings."""
    texts = time_text(column)
    return pc.replace_substring(texts, " ", "T", max_replacements=1) if pa.types.is_timestamp(column.type) else texts
