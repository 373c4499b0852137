"""Parquet: the row groups of a file cut into ranges of rows, and the pairs in these."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms.reading.fields import check_schema, fit_kept, id_field, note_lost, texts
from transforms.schema import Chunk, EncodedChunk, Fields, Part, encoded_schema

# Without a read buffer, or with pre-buffering, pyarrow loads a whole column chunk at once, however large.
READ_BUFFER_BYTES = 1 << 20
MAX_SERIES_PER_ROW_GROUP = 16

_MAGIC = b"PAR1"
_NAME = re.compile(r"\.(parquet|pq)$", re.IGNORECASE)


@dataclass(frozen=True)
class RowRange:
    """The place of a Parquet chunk: rows `start` to `stop` of a row group."""

    row_group: int
    start: int
    stop: int


def claims(path: str, head: bytes) -> bool:
    """Recognize a Parquet file by its name or its first bytes."""
    return _NAME.search(path) is not None or head.startswith(_MAGIC)


def read_schema(file: BinaryIO, fields: Fields) -> pa.Schema:
    """The Arrow schema of an opened Parquet file. Raises pa.ArrowException or OSError on a damaged footer."""
    return _open(file).schema_arrow


def list_rows(file: BinaryIO, fields: Fields, chunk_pairs: int, chunk_bytes: int) -> Iterator[list[Part]]:
    """Cut every row group into ranges of at most `chunk_pairs` rows and about `chunk_bytes` needed bytes.

    A row counts with its row group's mean size: the needed columns, uncompressed. Reading a range means skipping the
    rows before it in its row group. So the ranges of a row group form at most `MAX_SERIES_PER_ROW_GROUP` series, each
    read in one go, and no row is skipped more often than that.

    Raises:
        ValueError: a field is missing or unusable.
        pa.ArrowException, OSError: the footer is damaged.
    """
    parquet = _open(file)
    check_schema(parquet.schema_arrow, fields)
    leaves = _leaves(parquet.schema_arrow, fields)
    for index in range(parquet.num_row_groups):
        group = parquet.metadata.row_group(index)
        if group.num_rows == 0:
            continue
        most = min(chunk_pairs, max(1, chunk_bytes * group.num_rows // _needed_bytes(group, leaves)))
        # Ranges of equal size, rather than full ones and a short one at the end.
        rows = ceil(group.num_rows / ceil(group.num_rows / most))
        bounds = [(start, min(start + rows, group.num_rows)) for start in range(0, group.num_rows, rows)]
        parts = [Part(stop - start, RowRange(index, start, stop)) for start, stop in bounds]
        size = ceil(len(parts) / MAX_SERIES_PER_ROW_GROUP)
        yield from (parts[i : i + size] for i in range(0, len(parts), size))


def read_rows(
    file: BinaryIO, series: Sequence[Chunk], fields: Fields, keep: Sequence[pa.Field]
) -> Iterator[EncodedChunk]:
    """Read chunks of one row group, in ascending order, one chunk at a time.

    Raises:
        pa.ArrowException, OSError: a page is damaged, or the file has changed since it was listed. The chunks yielded
            before are good; later ones can still be read if they do not lie behind the damage.
    """
    parquet = _open(file)
    schema = parquet.schema_arrow
    ranges: list[RowRange] = [chunk.place for chunk in series]
    group = ranges[0].row_group
    leaves = _leaves(schema, fields)
    if group >= parquet.num_row_groups or ranges[-1].stop > parquet.metadata.row_group(group).num_rows:
        raise OSError("the file has changed since it was listed")
    # Chunks start at a multiple of their size, so that a batch of that size is one chunk. Threads would read the
    # columns by turns, and an object store would fetch its large blocks again and again.
    batches = parquet.iter_batches(series[0].pairs, row_groups=[group], columns=leaves, use_threads=False)
    for chunk, rows in zip(series, _cut(batches, ranges), strict=True):
        yield EncodedChunk(chunk, _encode(rows, chunk, id_field(schema, fields), fields, keep))


def _open(file: BinaryIO) -> pq.ParquetFile:
    return pq.ParquetFile(file, buffer_size=READ_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True)


def _names(schema: pa.Schema, fields: Fields) -> list[str]:
    """The fields to read, without repetition."""
    kept = (field.name for field in check_schema(schema, fields))
    names = (fields.generated, fields.target, id_field(schema, fields), *kept)
    return list(dict.fromkeys(name for name in names if name is not None))


def _leaves(schema: pa.Schema, fields: Fields) -> list[str]:
    """The columns to read. A struct contributes only its `bytes`: a `path` is never followed."""
    structs = {field.name for field in schema if pa.types.is_struct(field.type)}
    return [f"{name}.bytes" if name in structs else name for name in _names(schema, fields)]


def _needed_bytes(group: pq.RowGroupMetaData, leaves: Sequence[str]) -> int:
    columns = (group.column(i) for i in range(group.num_columns))
    return max(1, sum(c.total_uncompressed_size for c in columns if c.path_in_schema in leaves))


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
    ids = texts(rows[id_name]) if id_name is not None else [None] * chunk.pairs
    numbers = range(chunk.start, chunk.stop)
    kept, lost = [], {}
    for field in keep:
        if field.name in rows.schema.names:
            values, lost[field.name] = fit_kept(rows[field.name], field.type)
        else:
            values, lost[field.name] = pa.nulls(chunk.pairs, field.type), list(range(chunk.pairs))
        kept.append(values)
    columns = [
        [chunk.pair_id(n) if text is None else text for n, text in zip(numbers, ids, strict=True)],
        list(map(chunk.source, numbers)),
        _images(rows[fields.generated]),
        _images(rows[fields.target]),
        *kept,
    ]
    return note_lost(pa.table(columns, schema=encoded_schema(keep)), lost)


def _images(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The bytes of an image column as `binary`; null where the image or its struct's bytes are null."""
    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, "bytes")
    return column.cast(pa.binary())
