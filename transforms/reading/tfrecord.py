"""TFRecord files of tf.train.Example: their records cut into ranges of bytes, the fields and the pairs in these."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa

from transforms.reading.example_proto import example_class
from transforms.reading.fields import note_lost, texts
from transforms.reading.tfrecord_container import (
    Source,
    Span,
    compression,
    find_spans,
    is_tfrecord,
    open_source,
    read_data,
)
from transforms.schema import Chunk, EncodedChunk, Failure, Fields, Part, encoded_schema, pair_failure

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


class RecordError(ValueError):
    """A record that cannot be used: a stable reason code, a line for people, and the offending bytes."""

    def __init__(self, reason: str, message: str, data: bytes | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.data = data


def claims(path: str, head: bytes) -> bool:
    """Recognize a TFRecord file, compressed or not, by its name or its first bytes."""
    return _NAME.search(path) is not None or is_tfrecord(BytesIO(head))


def read_schema(file: BinaryIO, fields: Fields) -> pa.Schema | None:
    """The features of the first good records of an opened TFRecord file; None if there is no good record.

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
    rows: list[tuple[Any, ...]] = []
    failures: list[Failure] = []
    lost: dict[str, list[int]] = {field.name: [] for field in keep}
    stop = place.start
    # The range comes first, so that zip stops without looking beyond the chunk.
    for number, span in zip(range(chunk.start, chunk.stop), find_spans(source, stop), strict=False):
        stop = span.stop
        pair_id, origin = chunk.pair_id(number), chunk.source(number)
        try:
            example = _parse(source, span)
            pair_id = _id(example, fields) or pair_id
            images = [_image(example, name) for name in (fields.generated, fields.target)]
            kept = [_kept(example, field) for field in keep]
            for field, (_, fits) in zip(keep, kept, strict=True):
                lost[field.name] += [] if fits else [len(rows)]
            rows.append((pair_id, origin, *images, *(value for value, _ in kept)))
        except RecordError as error:
            message = f"{chunk.path}, record at offset {span.start}: {error}"
            failures.append(pair_failure(pair_id, origin, "read", error.reason, message, error.data))
    if len(rows) + len(failures) != chunk.pairs or stop != place.stop:
        raise OSError("the file has changed since it was listed")
    schema = encoded_schema(keep)
    columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
    arrays = [pa.array(list(values), field.type) for values, field in zip(columns, schema, strict=True)]
    return EncodedChunk(chunk, note_lost(pa.table(arrays, schema=schema), lost), tuple(failures))


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


def _id(example: Any, fields: Fields) -> str | None:
    value = _value(example, fields.id or "id")
    if isinstance(value, float):
        return texts(pa.chunked_array([pa.array([value], pa.float32())]))[0]
    return None if value is None else _text(value) if isinstance(value, bytes) else str(value)


def _image(example: Any, name: str) -> bytes | None:
    """The bytes of a feature; None if it has no value. Raises RecordError if the record lacks it."""
    if name not in example.features.feature:
        found = ", ".join(sorted(example.features.feature)) or "none"
        raise RecordError("missing_field", f"no field {name!r}; fields found: {found}")
    value = _value(example, name)
    if value is not None and not isinstance(value, bytes):
        raise RecordError("wrong_type", f"field {name!r} holds a number, bytes are needed")
    return value


def _kept(example: Any, field: pa.Field) -> tuple[pa.Scalar | None, bool]:
    """The value of a kept feature, and False if it has one that does not fit the field's type."""
    try:
        value = _value(example, field.name)
        if value is None:
            return None, True
        return pa.scalar(_text(value) if isinstance(value, bytes) else value).cast(field.type), True
    except (pa.ArrowException, RecordError):
        return None, False


def _value(example: Any, name: str) -> bytes | int | float | None:
    """The value of a feature; None if it is missing or has no value. Raises RecordError if it has several."""
    # Indexing a protobuf map would add the missing key.
    feature = example.features.feature.get(name)
    kind = feature.WhichOneof("kind") if feature is not None else None
    values = getattr(feature, kind).value if kind else ()
    if len(values) > 1:
        raise RecordError("wrong_type", f"field {name!r} holds {len(values)} values, one is needed")
    return values[0] if values else None


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
