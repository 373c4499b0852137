"""tf.train.Example records of a TFRecord file: the fields they hold, and the pairs in them.

TensorFlow is imported when the first record is parsed: it takes seconds, and may never be needed.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa

from transforms.reading.tfrecord_container import Source, Span, find_spans, open_source, read_data
from transforms.schema import Chunk, EncodedChunk, Failure, Fields, encoded_schema, pair_failure
from transforms.worker.tensorflow_import import import_tensorflow

PEEKED_RECORDS = 32

_ARROW_TYPES = {"bytes_list": pa.binary(), "int64_list": pa.int64(), "float_list": pa.float32()}


class RecordError(ValueError):
    """Why a record cannot be used: a stable reason code, a line for people, and the bytes to blame."""

    def __init__(self, reason: str, message: str, data: bytes | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.data = data


def read_schema(file: BinaryIO, fields: Fields) -> pa.Schema | None:
    """The features of the first good records of an opened TFRecord file; None: there is no good record.

    A feature that holds several values is a list. Bytes are text in the fields that are read as text.
    """
    source = open_source(file)
    found: dict[str, pa.DataType] = {}
    good = 0
    for span in islice(find_spans(source), PEEKED_RECORDS):
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


def read_records(
    file: BinaryIO, series: Sequence[Chunk], fields: Fields, keep: Sequence[pa.Field]
) -> Iterator[EncodedChunk]:
    """Read chunks of a TFRecord file, in ascending order, one chunk at a time.

    Raises:
        OSError: the file cannot be read, or has changed since it was listed.
    """
    source = open_source(file)
    for chunk in series:
        source.release(chunk.span[0])
        yield _read_chunk(source, chunk, fields, keep)


def _read_chunk(source: Source, chunk: Chunk, fields: Fields, keep: Sequence[pa.Field]) -> EncodedChunk:
    rows: list[tuple[Any, ...]] = []
    failures: list[Failure] = []
    stop = chunk.span[0]
    # The range comes first: at its end zip must not have looked beyond the chunk.
    for number, span in zip(range(chunk.start, chunk.stop), find_spans(source, stop), strict=False):
        stop = span.stop
        pair_id, origin = f"{chunk.path.rpartition('/')[2]}#{number}", f"{chunk.path}#{number}"
        try:
            example = _parse(source, span)
            pair_id = _id(example, fields) or pair_id
            rows.append((pair_id, origin, *_values(example, fields, keep)))
        except RecordError as error:
            message = f"{chunk.path}, record at offset {span.start}: {error}"
            failures.append(pair_failure(pair_id, origin, "read", error.reason, message, error.data))
    if len(rows) + len(failures) != chunk.pairs or stop != chunk.span[1]:
        raise OSError("the file has changed since it was listed")
    schema = encoded_schema(keep)
    columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
    arrays = [pa.array(list(values), field.type) for values, field in zip(columns, schema, strict=True)]
    return EncodedChunk(chunk, pa.table(arrays, schema=schema), tuple(failures))


def _parse(source: Source, span: Span) -> Any:
    """The Example of a span. Raises RecordError when the span is damaged or holds something else."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    import_tensorflow()
    from tensorflow.core.example.example_pb2 import Example

    if span.reason:
        raise RecordError(span.reason, span.message)
    data, intact = read_data(source, span)
    if not intact:
        raise RecordError("damaged_data", f"the checksum of its {len(data)} bytes is wrong", data)
    try:
        return Example.FromString(data)
    except DecodeError as error:
        raise RecordError("not_an_example", f"not a tf.train.Example: {error}", data) from error


def _values(example: Any, fields: Fields, keep: Sequence[pa.Field]) -> list[Any]:
    images = [_image(example, name) for name in (fields.generated, fields.target)]
    return images + [_kept(example, field) for field in keep]


def _id(example: Any, fields: Fields) -> str | None:
    value = _value(example, fields.id or "id")
    return None if value is None else _text(value) if isinstance(value, bytes) else str(value)


def _image(example: Any, name: str) -> bytes | None:
    """The bytes of a feature; None where it has no value. Raises RecordError where it is not there."""
    if name not in example.features.feature:
        found = ", ".join(sorted(example.features.feature)) or "none"
        raise RecordError("missing_field", f"no field {name!r}; fields found: {found}")
    value = _value(example, name)
    if value is not None and not isinstance(value, bytes):
        raise RecordError("wrong_type", f"field {name!r} holds a number, bytes are needed")
    return value


def _kept(example: Any, field: pa.Field) -> pa.Scalar | None:
    value = _value(example, field.name)
    if value is None:
        return None
    try:
        return pa.scalar(_text(value) if isinstance(value, bytes) else value).cast(field.type)
    except pa.ArrowException as error:
        raise RecordError("wrong_type", f"field {field.name!r} does not fit {field.type}: {error}") from error


def _value(example: Any, name: str) -> bytes | int | float | None:
    """The value of a feature; None where it is not there or has none. Raises RecordError for several."""
    # Indexing a protobuf map adds what is missing.
    feature = example.features.feature.get(name)
    kind = feature.WhichOneof("kind") if feature is not None else None
    values = getattr(feature, kind).value if kind else ()
    if len(values) > 1:
        raise RecordError("wrong_type", f"field {name!r} holds {len(values)} values, one is needed")
    return values[0] if values else None


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
