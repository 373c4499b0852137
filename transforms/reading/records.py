"""Records, one at a time, that hold or name the images of pairs: how the formats that read them make a chunk."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import pyarrow as pa

from transforms.failure import as_utf8, pair_failure
from transforms.reading.fields import fitted, note_lost, partitions
from transforms.reading.image_paths import Image, NamedPair, named_chunk
from transforms.reading.record_error import RecordError
from transforms.row_keys import CANDIDATE
from transforms.schema import Chunk, EncodedChunk, Fields


class Record(Protocol):
    """A record of a file."""

    def id(self, fields: Fields) -> str | None:
        """The record's own id."""
        ...

    def image(self, name: str) -> Image:
        """The image of a field. Raises RecordError if the record lacks it or it is none."""
        ...

    def kept(self, field: pa.Field) -> tuple[Any, bool]:
        """The value of a kept field, and False if the record has one that does not fit the field's type."""
        ...


def encode_records(
    chunk: Chunk, records: Iterable[Record | RecordError], fields: Fields, keep: Sequence[pa.Field]
) -> EncodedChunk:
    """The pairs of a chunk's records: of each record one per candidate, and a failure for each that cannot be read.

    Args:
        chunk: of the records.
        records: in order, each with its content, or with what is wrong with it.
        fields: the fields to read.
        keep: the kept fields.
    """
    pairs: list[NamedPair] = []
    failures = []
    lost: dict[str, list[int]] = {field.name: [] for field in keep}
    for number, record in zip(chunk.records(fields), records, strict=True):
        id, shared, kept = _shared(record, chunk.path, fields, keep)
        for position, name in enumerate(fields.generated):
            pair_id, source = id or chunk.pair_id(number), chunk.source(number * len(fields.generated) + position)
            generated = record if isinstance(record, RecordError) else _image(record, name)
            images = [image for image in (generated, *shared) if not isinstance(image, RecordError)]
            if error := next((image for image in (generated, *shared) if isinstance(image, RecordError)), None):
                candidate = name if fields.has_candidates else ""
                failures.append(pair_failure(pair_id, source, "read", error.reason, str(error), error.data, candidate))
                continue
            values = {CANDIDATE: (name, True)} if fields.has_candidates else {}
            values = {field.name: values.get(field.name) or kept[field.name] for field in keep}
            for field_name, (_, fits) in values.items():
                lost[field_name] += [] if fits else [len(pairs)]
            pairs.append(NamedPair(pair_id, source, tuple(images), tuple(value for value, _ in values.values())))
    named = named_chunk(chunk, pairs, keep, failures, bool(fields.mask))
    return replace(named, pairs=note_lost(named.pairs, lost))


def _shared(
    record: Record | RecordError, path: str, fields: Fields, keep: Sequence[pa.Field]
) -> tuple[str | None, list[Image | RecordError], dict[str, tuple[Any, bool]]]:
    """The id, the target, with masks the mask, and the kept values that all candidates of a record share."""
    if isinstance(record, RecordError):
        return None, [record], {}
    partition = partitions(path)
    kept = {field.name: record.kept(field) for field in keep}
    for field in keep:
        if kept[field.name][0] is None and field.name in partition:
            kept[field.name] = fitted(partition[field.name], field.type)
    try:
        names = (fields.target, *([fields.mask] if fields.mask else []))
        id = record.id(fields)
        # A name in an archive need not be UTF-8.
        return None if id is None else as_utf8(id), [_image(record, name) for name in names], kept
    except RecordError as error:
        return None, [error], kept


def _image(record: Record, name: str) -> Image | RecordError:
    try:
        return record.image(name)
    except RecordError as error:
        return error
