"""Parquet: the row groups of a file cut into ranges of rows, and the pairs in these."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms.reading.fields import (
    check_schema,
    fit_kept,
    fitted,
    id_field,
    is_array,
    is_bytes,
    is_list,
    is_text,
    note_lost,
    partitions,
    texts,
    with_nested,
)
from transforms.reading.image_paths import Image, image_of
from transforms.reading.record_error import RecordError
from transforms.reading.records import encode_records
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
        rows = _flat(rows, fields)
        if _holds_bytes(rows, fields):
            yield EncodedChunk(chunk, _encode(rows, chunk, id_field(schema, fields), fields, keep))
        else:
            yield encode_records(chunk, _records(rows, id_field(schema, fields), fields, keep), fields, keep)


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
    types = {field.name: field.type for field in with_nested(schema, fields)}
    return [leaf for name in _names(schema, fields) for leaf in _leaves_of(name, types[name])]


def _leaves_of(name: str, dtype: pa.DataType) -> list[str]:
    if not pa.types.is_struct(dtype):
        return [name]
    return [f"{name}.{part.name}" for part in dtype if part.name in ("bytes", "path")]


def _image_leaves(schema: pa.Schema, fields: Fields) -> set[str]:
    """Those of them that hold images and nothing else."""
    images = {*fields.generated, fields.target} - {id_field(schema, fields), *fields.keep}
    return {leaf for leaf in _leaves(schema, fields) if leaf.removesuffix(".bytes") in images or leaf in images}


def _flat(rows: pa.Table, fields: Fields) -> pa.Table:
    """The rows with the nested fields that are asked for as columns of their own."""
    for field in list(with_nested(rows.schema, fields))[rows.num_columns :]:
        first, *parts = field.name.split(".")
        rows = rows.append_column(field.name, pc.struct_field(rows[first], parts))
    return rows


def _needed_bytes(group: pq.RowGroupMetaData, leaves: Sequence[str]) -> int:
    columns = (group.column(i) for i in range(group.num_columns))
    return max(1, sum(c.total_uncompressed_size for c in columns if _is_of(c.path_in_schema, leaves)))


def _is_of(path: str, leaves: Sequence[str]) -> bool:
    # The parts of lists are called differently by different writers.
    return any(path == leaf or path.startswith(f"{leaf}.list.") for leaf in leaves)


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
    """The bytes of an image column.

    As `binary`; values that are often repeated, which would multiply a few bytes of a file, as a dictionary of them.
    """
    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, "bytes")
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


def _holds_bytes(rows: pa.Table, fields: Fields) -> bool:
    """True if every image that is not null lies in the rows as it is."""
    plain = not fields.base64 and not fields.array_type
    return plain and all(_is_bytes_or_null(rows[name]) for name in (*fields.generated, fields.target))


def _is_bytes_or_null(column: pa.ChunkedArray) -> bool:
    dtype = column.type
    if not pa.types.is_struct(dtype):
        return is_bytes(dtype.value_type if pa.types.is_dictionary(dtype) else dtype)
    if dtype.get_field_index("bytes") < 0:
        return False
    if dtype.get_field_index("path") < 0:
        return True
    missing = pc.is_null(pc.struct_field(column, "bytes"))
    return not pc.any(pc.and_(missing, pc.is_valid(pc.struct_field(column, "path")))).as_py()


@dataclass(frozen=True)
class _Record:
    """A row whose images are not plain bytes."""

    own_id: str | None
    images: Mapping[str, Any]
    values: Mapping[str, tuple[Any, bool]]
    fields: Fields

    def id(self, fields: Fields) -> str | None:
        return self.own_id

    def image(self, name: str) -> Image:
        value = self.images[name]
        return image_of(_array(value) if isinstance(value, pa.Array) else value, self.fields)

    def kept(self, field: pa.Field) -> tuple[Any, bool]:
        return self.values.get(field.name, (None, False))


def _records(rows: pa.Table, id_name: str | None, fields: Fields, keep: Sequence[pa.Field]) -> Iterator[_Record]:
    ids = texts(rows[id_name]) if id_name is not None else [None] * len(rows)
    images = {name: _pylist(rows[name]) for name in (*fields.generated, fields.target)}
    kept = {field.name: fit_kept(rows[field.name], field.type) for field in keep if field.name in rows.schema.names}
    for row, id in enumerate(ids):
        values = {name: (column[row].as_py(), row not in lost) for name, (column, lost) in kept.items()}
        yield _Record(id, {name: column[row] for name, column in images.items()}, values, fields)


def _storage(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.cast(column, column.type.storage_type) if isinstance(column.type, pa.BaseExtensionType) else column


def _array(values: pa.Array) -> np.ndarray:
    """The array that nested lists hold. Raises RecordError if their lengths differ, or a number is missing."""
    shape = [len(values)]
    while is_list(values.type):
        lengths = pc.unique(pc.list_value_length(values))
        if len(lengths) != 1 or values.null_count:
            raise RecordError("wrong_shape", f"the lists at depth {len(shape)} have different lengths")
        shape.append(lengths[0].as_py())
        values = values.flatten()
    if values.null_count:
        raise RecordError("wrong_shape", "a number of the array is missing")
    return values.to_numpy(zero_copy_only=False).reshape(shape)


def _pylist(column: pa.ChunkedArray) -> list[Any]:
    # Arrow does not check that text is UTF-8, and a path need not be.
    dtype = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if is_array(dtype):
        # As Python's numbers they would take many times the memory.
        return [value.values if value.is_valid else None for value in _storage(column)]
    if not pa.types.is_struct(dtype):
        return texts(column) if is_text(dtype) else column.to_pylist()
    parts = [part.name for part in dtype if part.name in ("bytes", "path")]
    columns = [_pylist(pc.struct_field(column, part)) for part in parts]
    return [dict(zip(parts, values, strict=True)) for values in zip(*columns, strict=True)]
