"""TFRecord files of tf.train.Example: their records cut into ranges of bytes, the fields and the pairs in these."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from transforms.reading.byte_source import Source
from transforms.reading.example_proto import example_class
from transforms.reading.fields import texts
from transforms.reading.image_paths import Image, image_of
from transforms.reading.record_error import RecordError
from transforms.reading.records import encode_records
from transforms.reading.tfrecord_container import (
    Span,
    compression,
    find_spans,
    is_tfrecord,
    open_source,
    read_data,
)
from transforms.schema import Chunk, EncodedChunk, Fields, Part

PEEKED_RECORDS = 32
# Kept fields that those lack are looked for in more records.
_MOST_PEEKED_RECORDS, _MOST_PEEKED_BYTES = 4096, 64 << 20

REASONS = {
    "damaged_header": "TFRecord: no record begins where one must; all up to the next good one counts as one",
    "damaged_data": "TFRecord: the checksum of the record's data is wrong",
    "long_record": "TFRecord: more bytes than are read of a record; its header told, and it was skipped",
    "truncated_record": "TFRecord: the file ends inside the record",
    "damaged_stream": "compressed TFRecord: it breaks off; all after the last whole record counts as one",
    "not_an_example": "the record is not a tf.train.Example",
}

_NAME = re.compile(r"\.(tfrecords?|tfrec|tfr)(-\d+-of-\d+)?(\.gz)?$", re.IGNORECASE)
_ARROW_TYPES = {"bytes_list": pa.binary(), "int64_list": pa.int64(), "float_list": pa.float32()}


@dataclass(frozen=True)
class ByteRange:
    """The place of a TFRecord chunk: bytes `start` to `stop` of the uncompressed file."""

    start: int
    stop: int


def claims(path: str, head: bytes) -> bool:
    """Recognize a TFRecord file, compressed or not, by its name or its first bytes."""
    return _NAME.search(path) is not None or is_tfrecord(BytesIO(head))


def read_schema(file: BinaryIO, fields: Fields) -> pa.Schema | None:
    """The features of the first good records of an opened TFRecord file; None if no record is good.

    A feature that holds several values is a list. Bytes are text in the fields that are read as text.
    """
    source = open_source(file)
    found: dict[str, pa.DataType] = {}
    good = 0
    for span in islice(find_spans(source), _MOST_PEEKED_RECORDS):
        if good >= PEEKED_RECORDS and (set(fields.keep) <= found.keys() or span.stop > _MOST_PEEKED_BYTES):
            break
        try:
            example = _parse(source, span)
        except RecordError:
            continue
        good += 1
        for name, feature in sorted(example.features.feature.items()):
            kind = feature.WhichOneof("kind")
            values = getattr(feature, kind).value if kind else ()
            if values:
                text = kind == "bytes_list" and name in ("id", fields.id, *fields.keep)
                dtype = pa.string() if text else _ARROW_TYPES[kind]
                found.setdefault(name, dtype if len(values) == 1 else pa.list_(dtype))
    return pa.schema(found.items()) if good else None


def list_records(file: BinaryIO, fields: Fields, chunk_pairs: int, chunk_bytes: int) -> Iterator[list[Part]]:
    """Cut an opened TFRecord file into ranges of at most `chunk_pairs` records and about `chunk_bytes` bytes.

    Fields differ between records, so they are checked when the records are read. A compressed file is one series, for
    it can only be read from its beginning.
    """
    compressed = compression(file)
    parts = _cut(find_spans(open_source(file)), chunk_pairs, chunk_bytes)
    if not compressed:
        yield from ([part] for part in parts)
    elif series := list(parts):
        yield series


def read_records(
    file: BinaryIO, series: Sequence[Chunk], fields: Fields, keep: Sequence[pa.Field]
) -> Iterator[EncodedChunk]:
    """Read chunks of a TFRecord file, in ascending order, one chunk at a time.

    Raises:
        OSError: the file cannot be read, or has changed since it was listed.
    """
    source = open_source(file)
    for chunk in series:
        source.release(chunk.place.start)
        yield _read_chunk(source, chunk, chunk.place, fields, keep)


def _cut(spans: Iterator[Span], chunk_pairs: int, chunk_bytes: int) -> Iterator[Part]:
    pairs = begin = end = 0
    for span in spans:
        if pairs and (pairs == chunk_pairs or span.stop - begin > chunk_bytes):
            yield Part(pairs, ByteRange(begin, end))
            pairs, begin = 0, end
        pairs, end = pairs + 1, span.stop
    if pairs:
        yield Part(pairs, ByteRange(begin, end))


def _read_chunk(
    source: Source, chunk: Chunk, place: ByteRange, fields: Fields, keep: Sequence[pa.Field]
) -> EncodedChunk:
    return encode_records(chunk, _records(source, chunk, place, fields), fields, keep)


def _records(source: Source, chunk: Chunk, place: ByteRange, fields: Fields) -> "Iterator[_Record | RecordError]":
    found, stop = 0, place.start
    # The range comes first, so that zip stops without looking beyond the chunk.
    for _, span in zip(chunk.records(fields), find_spans(source, stop), strict=False):
        found, stop = found + 1, span.stop
        where = f"{chunk.path}, record at offset {span.start}"
        try:
            yield _Record(_parse(source, span), where, fields)
        except RecordError as error:
            yield RecordError(error.reason, f"{where}: {error}", error.data)
    if found != len(chunk.records(fields)) or stop != place.stop:
        raise OSError("the file has changed since it was listed")


def _parse(source: Source, span: Span) -> Any:
    """The Example of a span. Raises RecordError when the span is damaged or holds something else."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if span.reason:
        raise RecordError(span.reason, span.message)
    data, intact = read_data(source, span)
    if not intact:
        raise RecordError("damaged_data", f"the checksum of its {len(data)} bytes is wrong", data)
    try:
        return example_class().FromString(data)
    except DecodeError as error:
        raise RecordError("not_an_example", f"not a tf.train.Example: {error}", data) from error


@dataclass(frozen=True)
class _Record:
    example: Any
    where: str
    fields: Fields

    def id(self, fields: Fields) -> str | None:
        value = self._value(fields.id or "id")
        if isinstance(value, float):
            return texts(pa.chunked_array([pa.array([value], pa.float32())]))[0]
        return None if value is None else _text(value) if isinstance(value, bytes) else str(value)

    def image(self, name: str) -> Image:
        if name not in self.example.features.feature:
            found = ", ".join(sorted(self.example.features.feature)) or "none"
            raise RecordError("missing_field", f"{self.where}: no field {name!r}; fields found: {found}")
        values = self._values(name)
        if len(values) > 1 and not isinstance(values[0], bytes):
            array = np.array(values, np.float32 if isinstance(values[0], float) else np.int64)
            return image_of(array, name, self.fields)
        value = self._value(name)
        if value is not None and not isinstance(value, bytes):
            raise RecordError("wrong_type", f"{self.where}: field {name!r} holds a number, bytes are needed")
        return image_of(value, name, self.fields)

    def kept(self, field: pa.Field) -> tuple[Any, bool]:
        try:
            value = self._value(field.name)
            if value is None:
                return None, True
            return pa.scalar(_text(value) if isinstance(value, bytes) else value).cast(field.type).as_py(), True
        except (pa.ArrowException, RecordError):
            return None, False

    def _value(self, name: str) -> bytes | int | float | None:
        """The value of a feature; None if it is missing or has no value. Raises RecordError if it has several."""
        values = self._values(name)
        if len(values) > 1:
            raise RecordError("wrong_type", f"{self.where}: field {name!r} holds {len(values)} values; one is needed")
        return values[0] if values else None

    def _values(self, name: str) -> Sequence[Any]:
        # Indexing a protobuf map would add the missing key.
        feature = self.example.features.feature.get(name)
        kind = feature.WhichOneof("kind") if feature is not None else None
        return getattr(feature, kind).value if kind else ()


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
