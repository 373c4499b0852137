"""Manifests: CSV and JSON lines whose records name two image files each."""

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa

from transforms.reading.fields import check_schema, common_type, fitted, id_field, nested_value
from transforms.reading.image_paths import Image, image_of
from transforms.reading.lines import MAX_LINE_BYTES, LineRange, cut, read_lines
from transforms.reading.record_error import RecordError
from transforms.reading.records import encode_records
from transforms.schema import Chunk, EncodedChunk, Fields, Part

PEEKED_RECORDS = 1000

REASONS = {"damaged_line": "manifest: the line is not a JSON object, or has more or fewer cells than the header"}

_CSV_NAME = re.compile(r"\.(csv|tsv)$", re.IGNORECASE)
_JSONL_NAME = re.compile(r"\.(jsonl|ndjson)$", re.IGNORECASE)
_BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

# The fields of a record by name.
Values = Mapping[str, Any]
Parse = Callable[[BinaryIO, Chunk], Iterable[Values | str]]


def claims_csv(path: str, head: bytes) -> bool:
    """Recognize a CSV or TSV file by its name."""
    return _CSV_NAME.search(path) is not None


def claims_jsonl(path: str, head: bytes) -> bool:
    """Recognize a file of JSON lines by its name."""
    return _JSONL_NAME.search(path) is not None


def read_csv_schema(file: BinaryIO, fields: Fields) -> pa.Schema:
    """The columns of a CSV file: all are text."""
    return pa.schema([(name, pa.string()) for name in _header(file)])


def read_jsonl_schema(file: BinaryIO, fields: Fields) -> pa.Schema | None:
    """The keys of the first objects, with the types of their values; None for a file without objects."""
    records = (_object(line) for line in read_lines(file) if not _is_blank(line))
    peeked = [record for record in islice(records, PEEKED_RECORDS) if not isinstance(record, str)]
    return pa.schema(types_of(peeked).items()) if peeked else None


def types_of(records: Iterable[Values]) -> dict[str, pa.DataType]:
    """The types of the fields of JSON objects, by name; text where values have none in common."""
    types: dict[str, dict[str, pa.DataType]] = defaultdict(dict)
    for record in records:
        for name, value in record.items():
            if value is not None:
                dtype = _type_of(value)
                types[name][str(dtype)] = dtype
    return {name: common_type(found.values()) for name, found in types.items()}


def _type_of(value: Any) -> pa.DataType:
    try:
        return pa.scalar(value).type
    except (pa.ArrowException, OverflowError):
        # A number of 30 digits, or a list of this and that.
        return pa.string()


def parse_json(data: bytes) -> Any:
    """The value of a JSON text, in which every text can be written. Raises ValueError or RecursionError."""
    value = json.loads(data)
    if not _SURROGATE.search(data):
        return value
    # UTF-8 cannot encode a lone surrogate, so no output could hold it.
    return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


def fitted_value(values: Values, field: pa.Field) -> tuple[Any, bool]:
    """A kept field of a JSON object in its type, and False if it is missing or does not fit."""
    value, found = nested_value(values, field.name)
    if value is None:
        return None, found
    return fitted(value, field.type)


def list_csv(file: BinaryIO, fields: Fields, chunk_pairs: int, chunk_bytes: int) -> Iterator[list[Part]]:
    """Cut a CSV file into ranges of at most `chunk_pairs` rows.

    Raises:
        ValueError: a field is missing, it is no CSV, or a quote is never closed; then all rows before it are listed.
    """
    check_schema(read_csv_schema(file, fields), fields)
    last = LineRange(0, 0)

    def spans() -> Iterator[tuple[int, int, int]]:
        nonlocal last
        for start, stop, size in _rows_of_csv(file):
            last = LineRange(start, stop)
            yield start, stop, size

    yield from cut(spans(), chunk_pairs, chunk_bytes)
    _check_closed(last.read(file), _delimiter(file))


def list_jsonl(file: BinaryIO, fields: Fields, chunk_pairs: int, chunk_bytes: int) -> Iterator[list[Part]]:
    """Cut a file of JSON lines into ranges of at most `chunk_pairs` lines. Keys are checked as they are read."""
    yield from cut(_lines_of_jsonl(file), chunk_pairs, chunk_bytes)


def read_csv(
    file: BinaryIO, series: Sequence[Chunk], fields: Fields, keep: Sequence[pa.Field]
) -> Iterator[EncodedChunk]:
    """Read the pairs that rows name. Raises OSError if the file has changed since it was listed."""
    yield from _read(_parse_csv, file, series, fields, keep)


def read_jsonl(
    file: BinaryIO, series: Sequence[Chunk], fields: Fields, keep: Sequence[pa.Field]
) -> Iterator[EncodedChunk]:
    """Read the pairs that lines name. Raises OSError if the file has changed since it was listed."""
    yield from _read(_parse_jsonl, file, series, fields, keep)


def _read(
    parse: Parse, file: BinaryIO, series: Sequence[Chunk], fields: Fields, keep: Sequence[pa.Field]
) -> Iterator[EncodedChunk]:
    for chunk in series:
        records = [
            RecordError("damaged_line", record) if isinstance(record, str) else _Record(record, fields)
            for record in parse(file, chunk)
        ]
        if len(records) != len(chunk.records(fields)):
            raise OSError("the file has changed since it was listed")
        yield encode_records(chunk, records, fields, keep)


@dataclass(frozen=True)
class _Record:
    values: Values
    fields: Fields

    def id(self, fields: Fields) -> str | None:
        name = id_field(pa.schema([(name, pa.string()) for name in self.values]), fields)
        value, _ = nested_value(self.values, name) if name is not None else (None, False)
        return None if value is None else str(value)

    def image(self, name: str) -> Image:
        value, is_there = nested_value(self.values, name)
        if not is_there:
            found = ", ".join(sorted(self.values)) or "none"
            raise RecordError("missing_field", f"no field {name!r}; fields found: {found}")
        return image_of(value, name, self.fields)

    def kept(self, field: pa.Field) -> tuple[Any, bool]:
        return fitted_value(self.values, field)


def _object(line: bytes) -> Values | str:
    """The JSON object of a line, or what is wrong with it."""
    try:
        record = parse_json(line.removeprefix(_BOM))
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    return record if isinstance(record, dict) else f"not a JSON object but {line[:50]!r}"


def _is_blank(line: bytes) -> bool:
    return not line.removeprefix(_BOM).strip()


def _lines_of_jsonl(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    start = 0
    for line in read_lines(file):
        if not _is_blank(line):
            yield start, start + len(line), len(line)
        start += len(line)


def _parse_jsonl(file: BinaryIO, chunk: Chunk) -> Iterator[Values | str]:
    return (_object(line) for line in chunk.place.read(file).split(b"\n") if not _is_blank(line))


def _table(lines: Iterable[bytes], delimiter: str, strict: bool = False) -> Iterator[list[str]]:
    """The rows of lines of CSV. Raises ValueError if they are none."""
    text = (line.decode("utf-8", "backslashreplace") for line in lines)
    # A cell may hold an image as base64.
    csv.field_size_limit(MAX_LINE_BYTES)
    try:
        yield from csv.reader(text, delimiter=delimiter, skipinitialspace=delimiter != "\t", strict=strict)
    except csv.Error as error:
        raise ValueError(f"not CSV: {error}") from error


def _check_closed(row: bytes, delimiter: str) -> None:
    """Check that the last row ends by itself: a quote that is never closed swallows the rows that follow it."""
    try:
        list(_table(io.BytesIO(row), delimiter, strict=True))
    except ValueError as error:
        if "unexpected end of data" in str(error):
            lines = row.count(b"\n") + 1
            message = f"a quote in {row[:60]!r} is never closed, so that {lines} lines are one row; close it"
            raise ValueError(message) from error


def _header_line(file: BinaryIO) -> bytes:
    """The first line that is not empty, without a mark of byte order."""
    lines = (line.removeprefix(_BOM) for line in read_lines(file))
    return next((line for line in lines if line.rstrip(b"\r\n")), b"")


def _header(file: BinaryIO) -> list[str]:
    line = _header_line(file)
    if line[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError("its text is UTF-16; save it as UTF-8")
    return [name.strip() for name in next(_table([line], _delimiter(file)), [])]


def _delimiter(file: BinaryIO) -> str:
    """Tabs separate the cells if the header has one, and semicolons if it has no comma."""
    header = _header_line(file)
    return "\t" if b"\t" in header else ";" if b";" in header and b"," not in header else ","


def _rows_of_csv(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """Where each row starts and stops; one with quoted line breaks takes several lines."""
    position = 0

    def counted() -> Iterator[bytes]:
        nonlocal position
        for line in read_lines(file):
            first = not position
            position += len(line)
            yield line.removeprefix(_BOM) if first else line

    start, has_header = 0, False
    for row in _table(counted(), _delimiter(file)):
        if row and has_header:
            yield start, position, position - start
        has_header = has_header or bool(row)
        start = position


def _parse_csv(file: BinaryIO, chunk: Chunk) -> Iterator[Values | str]:
    header, delimiter = _header(file), _delimiter(file)
    for row in _table(io.BytesIO(chunk.place.read(file)), delimiter):
        if row:
            short = f"{len(row)} cells, but the header has {len(header)}"
            # An empty cell names nothing.
            yield {k: v or None for k, v in zip(header, row, strict=True)} if len(row) == len(header) else short
