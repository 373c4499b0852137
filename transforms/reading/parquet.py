"""Parquet: the row groups of a file cut into ranges of rows, and the pairs in these."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms.reading.fields import check_schema, fit_kept, id_field, is_text, note_lost, texts
from transforms.reading.image_paths import NamedPair, Place, named_chunk
from transforms.schema import CANDIDATE, Chunk, EncodedChunk, Fields, Part, encoded_schema

# Without a read buffer, or with pre-buffering, pyarrow loads a whole column chunk at once, however large.
READ_BUFFER_BYTES = 1 << 20
MAX_SERIES_PER_ROW_GROUP = 16
_OPTIONS = {"buffer_size": READ_BUFFER_BYTES, "pre_buffer": False, "page_checksum_verification": True}
_COUNTED_ROWS = 1 << 16
# Images whose bytes are repeated more often than this, on average, stay a dictionary.
_MOST_REPEATED = 2

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
        _check_rows(parquet, file, index, leaves)
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
    reader = _with_dictionaries(parquet, file, group, _image_leaves(schema, fields))
    records = len(series[0].records(fields))
    batches = reader.iter_batches(records, row_groups=[group], columns=leaves, use_threads=False)
    for chunk, rows in zip(series, _cut(batches, ranges), strict=True):
        encoded = _encode(rows, chunk, id_field(schema, fields), fields, keep)
        paths = [_paths(rows, fields.generated), _paths(rows, (fields.target,) * len(fields.generated))]
        yield _with_paths(encoded, paths, chunk, keep) if any(paths) else EncodedChunk(chunk, encoded)


def _check_rows(parquet: pq.ParquetFile, file: BinaryIO, index: int, leaves: Sequence[str]) -> None:
    """Check the number of rows that a footer claims, if the bytes of the row group make it hard to believe.

    Raises:
        OSError: the row group has another number of rows.
    """
    group = parquet.metadata.row_group(index)
    # An image takes bytes, unless the same one, or none, is repeated. Such rows are few or quickly counted.
    if not 0 < group.num_rows <= _needed_bytes(group, leaves):
        claimed = max(0, group.num_rows)
        image = leaves[:1]
        reader = _with_dictionaries(parquet, file, index, image)
        batches = reader.iter_batches(_COUNTED_ROWS, row_groups=[index], columns=image, use_threads=False)
        found = sum(batch.num_rows for batch in batches)
        if found != claimed or group.num_rows < 0:
            raise OSError(f"the footer claims {group.num_rows} rows in row group {index}, which has {found}")


def _open(file: BinaryIO) -> pq.ParquetFile:
    return pq.ParquetFile(file, **_OPTIONS)


def _with_dictionaries(parquet: pq.ParquetFile, file: BinaryIO, index: int, leaves: Iterable[str]) -> pq.ParquetFile:
    """The file, reading each leaf that a row group stores as a dictionary so that a repeated value is there once."""
    columns = map(parquet.metadata.row_group(index).column, range(parquet.metadata.num_columns))
    stored = [c.path_in_schema for c in columns if c.has_dictionary_page and c.path_in_schema in leaves]
    return pq.ParquetFile(file, metadata=parquet.metadata, read_dictionary=stored, **_OPTIONS)


def _names(schema: pa.Schema, fields: Fields) -> list[str]:
    """The fields to read, without repetition."""
    kept = (field.name for field in check_schema(schema, fields))
    names = (*fields.generated, fields.target, id_field(schema, fields), *kept)
    return list(dict.fromkeys(name for name in names if name is not None))


def _leaves(schema: pa.Schema, fields: Fields) -> list[str]:
    """The columns to read. A struct contributes only its `bytes` and its `path`."""
    parts = {
        field.name: [f"{field.name}.{part.name}" for part in field.type if part.name in ("bytes", "path")]
        for field in schema
        if pa.types.is_struct(field.type)
    }
    return [leaf for name in _names(schema, fields) for leaf in parts.get(name, [name])]


def _image_leaves(schema: pa.Schema, fields: Fields) -> set[str]:
    """Those of them that hold images and nothing else."""
    images = {*fields.generated, fields.target} - {id_field(schema, fields), *fields.keep}
    return {leaf for leaf in _leaves(schema, fields) if leaf.removesuffix(".bytes") in images or leaf in images}


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
    ids = texts(rows[id_name]) if id_name is not None else [None] * len(rows)
    names = [chunk.pair_id(n) if text is None else text for n, text in zip(chunk.records(fields), ids, strict=True)]
    times = len(fields.generated)
    # The rows of the candidates of a record follow each other.
    record = pa.array(np.repeat(np.arange(len(rows)), times))
    kept, lost = [], {}
    for field in keep:
        if fields.has_candidates and field.name == CANDIDATE:
            kept.append(pa.array([*fields.generated] * len(rows), field.type))
        elif field.name in rows.schema.names:
            values, unfit = fit_kept(rows[field.name], field.type)
            lost[field.name] = [row * times + i for row in unfit for i in range(times)]
            kept.append(values.take(record))
        else:
            kept.append(pa.nulls(chunk.pairs, field.type))
            lost[field.name] = list(range(chunk.pairs))
    columns = [
        pa.array(names, pa.string()).take(record),
        list(map(chunk.source, range(chunk.start, chunk.stop))),
        _alternating([_images(rows[name]) for name in fields.generated]),
        _repeated(_images(rows[fields.target]), record) if fields.has_candidates else _images(rows[fields.target]),
        *kept,
    ]
    schema = encoded_schema(keep)
    for image in ("generated", "target"):
        index = schema.get_field_index(image)
        schema = schema.set(index, schema.field(index).with_type(columns[index].type))
    return note_lost(pa.table(columns, schema=schema), lost)


def _images(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """The bytes of an image column; null where there are none, but a path at most.

    As `binary`; values that are often repeated, which would multiply a few bytes of a file, as a dictionary of them.
    """
    if pa.types.is_struct(column.type):
        names = [part.name for part in column.type]
        column = pc.struct_field(column, "bytes") if "bytes" in names else pa.chunked_array([pa.nulls(len(column))])
    if _is_path(column.type):
        return pa.nulls(len(column), pa.binary())
    if not pa.types.is_dictionary(column.type):
        return column.cast(pa.binary())
    array = column.unify_dictionaries().combine_chunks()
    lengths, used = pc.binary_length(array.dictionary), pc.unique(array.indices.drop_null())
    stored, repeated = (pc.sum(lengths.take(indices)).as_py() or 0 for indices in (used, array.indices))
    if repeated <= _MOST_REPEATED * stored:
        return array.cast(pa.binary())
    return pa.DictionaryArray.from_arrays(pc.index_in(array.indices, used), array.dictionary.take(used))


def _alternating(columns: Sequence[pa.ChunkedArray | pa.Array]) -> pa.ChunkedArray | pa.Array:
    """The first values of all columns, then the second values, and so on."""
    if len(columns) == 1:
        return columns[0]
    if any(pa.types.is_dictionary(column.type) for column in columns):
        columns = [column.dictionary_encode() for column in columns]
    pieces = [piece for column in columns for piece in getattr(column, "chunks", [column])]
    order = np.arange(len(columns) * len(columns[0])).reshape(len(columns), -1).T.ravel()
    return pa.chunked_array(pieces).unify_dictionaries().combine_chunks().take(pa.array(order))


def _repeated(column: pa.ChunkedArray | pa.Array, rows: pa.Array) -> pa.DictionaryArray:
    """The values of these rows, each of whose bytes are there once."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(array.type):
        return array.take(rows)
    return pa.DictionaryArray.from_arrays(rows.cast(pa.int32()), array)


def _is_path(dtype: pa.DataType) -> bool:
    return is_text(dtype.value_type if pa.types.is_dictionary(dtype) else dtype)


def _paths(rows: pa.Table, names: Sequence[str]) -> list[str | None]:
    """The paths of the images whose bytes are not in these columns, by record; empty if there are none."""
    columns = [_paths_of(rows[name]) or [None] * len(rows) for name in names]
    paths = [path for record in zip(*columns, strict=True) for path in record]
    return paths if any(path is not None for path in paths) else []


def _paths_of(column: pa.ChunkedArray) -> list[str | None]:
    if pa.types.is_struct(column.type):
        if "path" not in [part.name for part in column.type]:
            return []
        images, column = _images(column), pc.struct_field(column, "path")
        column = pc.if_else(images.is_null(), column, None)
    return texts(column) if _is_path(column.type) else []


def _with_paths(
    encoded: pa.Table, paths: Sequence[Sequence[str | None]], chunk: Chunk, keep: Sequence[pa.Field]
) -> EncodedChunk:
    """The chunk with the paths of the images that are not in `encoded`."""
    columns = [column or [None] * len(encoded) for column in paths]
    pairs = []
    for row, *paths_of_row in zip(encoded.to_pylist(), *columns, strict=True):
        generated, target = (
            row[side] if path is None else Place(path)
            for side, path in zip(("generated", "target"), paths_of_row, strict=True)
        )
        kept = tuple(row[field.name] for field in keep)
        pairs.append(NamedPair(row["id"], row["source"], generated, target, kept))
    named = named_chunk(chunk, pairs, keep)
    if "notes" not in encoded.schema.names:
        return named
    return replace(named, pairs=named.pairs.append_column("notes", encoded["notes"]))
