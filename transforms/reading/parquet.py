"""Parquet: the pairs in ranges of rows. `parquet_cutting` cuts a file into these."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from transforms.reading.fields import fit_kept, fitted, id_field, note_lost, partitions, texts
from transforms.reading.image_paths import Image
from transforms.reading.parquet_file import (
    RowRange,
    field_names,
    image_leaves,
    leaves_of,
    open_parquet,
    with_dictionaries,
    with_nested_columns,
)
from transforms.reading.parquet_images import alternating, holds_bytes, image_bytes, images_of, repeated
from transforms.reading.record_error import RecordError
from transforms.reading.records import encode_records
from transforms.row_keys import CANDIDATE
from transforms.schema import Chunk, EncodedChunk, Fields, encoded_schema

# The second one is that of encrypted files.
_MAGICS = (b"PAR1", b"PARE")
_NAME = re.compile(r"\.(parquet|pq)$", re.IGNORECASE)


def claims(path: str, head: bytes) -> bool:
    """Recognize a Parquet file by its name or its first bytes."""
    return _NAME.search(path) is not None or head.startswith(_MAGICS)


def read_schema(file: BinaryIO, fields: Fields) -> pa.Schema:
    """The Arrow schema of an opened Parquet file. Raises pa.ArrowException or OSError on a damaged footer."""
    return open_parquet(file).schema_arrow


def read_rows(
    file: BinaryIO, series: Sequence[Chunk], fields: Fields, keep: Sequence[pa.Field]
) -> Iterator[EncodedChunk]:
    """Read chunks, in ascending order, one chunk at a time.

    Raises:
        pa.ArrowException, OSError: a page is damaged, or the file has changed since it was listed. The chunks yielded
            before are good; later ones can still be read if they do not lie behind the damage.
    """
    parquet = open_parquet(file, (series[0].path, series[0].version))
    schema = parquet.schema_arrow
    id_name = id_field(schema, fields)
    leaves = leaves_of(parquet, fields, field_names(schema, fields))
    images = image_leaves(parquet, fields)
    for group, chunks_of_group in groupby(series, key=lambda chunk: chunk.place.row_group):
        chunks = list(chunks_of_group)
        ranges: list[RowRange] = [chunk.place for chunk in chunks]
        if group >= parquet.num_row_groups or ranges[-1].stop > parquet.metadata.row_group(group).num_rows:
            raise OSError("the file has changed since it was listed")
        # Chunks of equal size start at a multiple of it, so that a batch of that size is one chunk. Threads would read
        # the columns by turns, and an object store would fetch its large blocks again and again.
        reader = with_dictionaries(parquet, file, group, images)
        records = len(chunks[0].records(fields))
        batches = reader.iter_batches(records, row_groups=[group], columns=leaves, use_threads=False)
        for chunk, rows in zip(chunks, _cut(batches, ranges), strict=True):
            rows = with_nested_columns(rows, fields)
            if holds_bytes(rows, fields):
                yield EncodedChunk(chunk, _encode(rows, chunk, id_name, fields, keep))
            else:
                yield encode_records(chunk, _records(rows, id_name, fields, keep), fields, keep)


def _cut(batches: Iterator[pa.RecordBatch], ranges: Iterable[RowRange]) -> Iterator[pa.Table]:
    """The rows of each range, from batches that start at row 0; holds one batch beside the range."""
    stop = 0
    batch: pa.RecordBatch | None = None
    for wanted in ranges:
        parts = []
        position = wanted.start
        while position < wanted.stop:
            while batch is None or stop <= position:
                batch = next(batches, None)
                if batch is None:
                    raise OSError(f"the row group ends at row {stop}, row {wanted.stop} was expected")
                stop += batch.num_rows
            offset = position - (stop - batch.num_rows)
            parts.append(batch.slice(offset, wanted.stop - position))
            position += parts[-1].num_rows
        yield pa.Table.from_batches(parts)


def _encode(rows: pa.Table, chunk: Chunk, id_name: str | None, fields: Fields, keep: Sequence[pa.Field]) -> pa.Table:
    ids = texts(rows[id_name]) if id_name is not None else [None] * len(rows)
    names = [chunk.pair_id(n) if text is None else text for n, text in zip(chunk.records(fields), ids, strict=True)]
    times = len(fields.generated)
    # The rows of the candidates of a record follow each other.
    record = pa.array(np.repeat(np.arange(len(rows)), times))
    partition = partitions(chunk.path)
    kept, lost = [], {}
    for field in keep:
        if fields.has_candidates and field.name == CANDIDATE:
            kept.append(pa.array([*fields.generated] * len(rows), field.type))
        elif field.name in rows.schema.names:
            values, unfit = fit_kept(rows[field.name], field.type)
            lost[field.name] = [row * times + i for row in unfit for i in range(times)]
            kept.append(values.take(record))
        else:
            value, fits = fitted(partition.get(field.name), field.type)
            kept.append(pa.array([value] * chunk.pairs, field.type))
            lost[field.name] = [] if fits and field.name in partition else list(range(chunk.pairs))
    shared = [image_bytes(rows[name]) for name in (fields.target, *([fields.mask] if fields.mask else []))]
    columns = [
        pa.array(names, pa.string()).take(record),
        list(map(chunk.source, range(chunk.start, chunk.stop))),
        alternating([image_bytes(rows[name]) for name in fields.generated]),
        *(repeated(images, record) if fields.has_candidates else images for images in shared),
        *kept,
    ]
    schema = encoded_schema(keep, bool(fields.mask))
    for index in range(2, 3 + len(shared)):
        schema = schema.set(index, schema.field(index).with_type(columns[index].type))
    return note_lost(pa.table(columns, schema=schema), lost)


@dataclass(frozen=True)
class _Record:
    """A row whose images are not plain bytes."""

    own_id: str | None
    images: Mapping[str, Image | RecordError]
    values: Mapping[str, tuple[Any, bool]]

    def id(self, fields: Fields) -> str | None:
        return self.own_id

    def image(self, name: str) -> Image:
        image = self.images[name]
        if isinstance(image, RecordError):
            raise image
        return image

    def kept(self, field: pa.Field) -> tuple[Any, bool]:
        return self.values.get(field.name, (None, False))


def _records(rows: pa.Table, id_name: str | None, fields: Fields, keep: Sequence[pa.Field]) -> Iterator[_Record]:
    ids = texts(rows[id_name]) if id_name is not None else [None] * len(rows)
    images = {name: images_of(rows[name], name, fields) for name in fields.images}
    kept = {field.name: fit_kept(rows[field.name], field.type) for field in keep if field.name in rows.schema.names}
    for row, id in enumerate(ids):
        values = {name: (column[row].as_py(), row not in lost) for name, (column, lost) in kept.items()}
        yield _Record(id, {name: column[row] for name, column in images.items()}, values)
