"""Parquet: the row groups of a file cut into ranges of rows, and the pairs in these."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import ceil
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms.reading.fields import check_schema, fit_kept, id_field, is_image, is_text, note_lost, texts
from transforms.reading.image_paths import PathPair, named_chunk
from transforms.schema import Chunk, EncodedChunk, Failure, Fields, Part, encoded_schema, pair_failure

# Without a read buffer, or with pre-buffering, pyarrow loads a whole column chunk at once, however large.
READ_BUFFER_BYTES = 1 << 20
MAX_SERIES_PER_ROW_GROUP = 16
_OPTIONS = {"buffer_size": READ_BUFFER_BYTES, "pre_buffer": False, "page_checksum_verification": True}
_COUNTED_ROWS = 1 << 16
# Images whose bytes are repeated more often than this, on average, stay a dictionary.
_MOST_REPEATED = 2
# Row groups beyond the limit of a chunk are measured, this share of what a chunk may hold at a time.
_MEASURED_SHARE = 16

# Footers of the files that this process read last, by path and version: with many row groups one takes longer to parse
# than a chunk to read.
_footers: dict[tuple[str, str], pq.FileMetaData] = {}
_MOST_FOOTERS = 4

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
    """The Arrow schema of an opened Parquet file, as `fields` see it. Raises pa.ArrowException or OSError on damage."""
    return _schema(_open(file), fields)


def list_rows(file: BinaryIO, fields: Fields, chunk_pairs: int, chunk_bytes: int) -> Iterator[list[Part]]:
    """Cut every row group into ranges of at most `chunk_pairs` rows and about `chunk_bytes` needed bytes.

    A row group that takes more than `chunk_bytes`, uncompressed, is read to measure its images, because large ones may
    lie together. Reading a range means skipping the rows before it in its row group. So the ranges of a row group form
    at most `MAX_SERIES_PER_ROW_GROUP` series, each read in one go, and no row is skipped more often than that.
    Neighbouring row groups that together fit in a chunk are a series as well.

    Raises:
        ValueError: a field is missing or unusable.
        pa.ArrowException, OSError: the footer is damaged, or a row group that had to be measured.
    """
    parquet = _open(file)
    schema = _schema(parquet, fields)
    check_schema(schema, fields)
    leaves = _leaves(parquet, schema, _names(schema, fields))
    small: list[Part] = []
    pairs = needed = 0
    for index in range(parquet.num_row_groups):
        group = parquet.metadata.row_group(index)
        if group.num_rows == 0:
            continue
        size = _needed_bytes(group, leaves)
        _check_rows(parquet, file, index, size, leaves)
        if small and (pairs + group.num_rows > chunk_pairs or needed + size > chunk_bytes):
            yield small
            small, pairs, needed = [], 0, 0
        if size > chunk_bytes:
            yield from _cut_by_bytes(parquet, file, index, fields, chunk_pairs, chunk_bytes)
        elif group.num_rows > chunk_pairs:
            yield from _cut_evenly(index, 0, group.num_rows, chunk_pairs)
        else:
            small.append(Part(group.num_rows, RowRange(index, 0, group.num_rows)))
            pairs, needed = pairs + group.num_rows, needed + size
    if small:
        yield small


def read_rows(
    file: BinaryIO, series: Sequence[Chunk], fields: Fields, keep: Sequence[pa.Field]
) -> Iterator[EncodedChunk]:
    """Read chunks, in ascending order, one chunk at a time.

    Raises:
        pa.ArrowException, OSError: a page is damaged, or the file has changed since it was listed. The chunks yielded
            before are good; later ones can still be read if they do not lie behind the damage.
    """
    parquet = _open(file, (series[0].path, series[0].version))
    schema = _schema(parquet, fields)
    names = _names(schema, fields)
    leaves = _leaves(parquet, schema, names)
    images = _image_leaves(parquet, schema, fields)
    for group, chunks_of_group in groupby(series, key=lambda chunk: chunk.place.row_group):
        chunks = list(chunks_of_group)
        ranges: list[RowRange] = [chunk.place for chunk in chunks]
        if group >= parquet.num_row_groups or ranges[-1].stop > parquet.metadata.row_group(group).num_rows:
            raise OSError("the file has changed since it was listed")
        # Chunks of equal size start at a multiple of it, so that a batch of that size is one chunk. Threads would read
        # the columns by turns, and an object store would fetch its large blocks again and again.
        reader = _with_dictionaries(parquet, file, group, images)
        batches = reader.iter_batches(chunks[0].pairs, row_groups=[group], columns=leaves, use_threads=False)
        for chunk, rows in zip(chunks, _cut(batches, ranges), strict=True):
            columns = pa.table([_column(rows, name) for name in names], names=names)
            yield _read_chunk(columns, chunk, id_field(schema, fields), fields, keep)


def _cut_evenly(index: int, begin: int, end: int, most: int) -> Iterator[list[Part]]:
    """Ranges of equal size, rather than full ones and a short one at the end."""
    step = ceil((end - begin) / ceil((end - begin) / most))
    bounds = [(start, min(start + step, end)) for start in range(begin, end, step)]
    parts = [Part(stop - start, RowRange(index, start, stop)) for start, stop in bounds]
    size = ceil(len(parts) / MAX_SERIES_PER_ROW_GROUP)
    yield from (parts[i : i + size] for i in range(0, len(parts), size))


def _cut_by_bytes(
    parquet: pq.ParquetFile, file: BinaryIO, index: int, fields: Fields, chunk_pairs: int, chunk_bytes: int
) -> Iterator[list[Part]]:
    """Ranges that are as full as the bytes of their own images allow; yields while it measures."""
    group = parquet.metadata.row_group(index)
    leaves = _leaves(parquet, _schema(parquet, fields), (fields.generated, fields.target))
    mean = ceil(_needed_bytes(group, leaves) / group.num_rows)
    even = min(chunk_pairs, max(1, chunk_bytes // mean))
    series: list[Part] = []
    start = stop = needed = 0
    readable = True
    try:
        for size in _row_bytes(parquet, file, index, leaves, fields, ceil(even / _MEASURED_SHARE)):
            if stop > start and (stop - start == chunk_pairs or needed + size > chunk_bytes):
                series.append(Part(stop - start, RowRange(index, start, stop)))
                # A series ends with the chunk in which another share of the row group begins.
                share = group.num_rows / MAX_SERIES_PER_ROW_GROUP
                if start // share != stop // share:
                    yield series
                    series = []
                start, needed = stop, 0
            stop, needed = stop + 1, needed + size
    except (pa.ArrowException, OSError, MemoryError):
        # Whoever reads the rest finds what is wrong with it, and which chunks it costs.
        readable = False
    if readable and stop != group.num_rows:
        raise OSError(f"the footer claims {group.num_rows} rows in row group {index}, which has {stop}")
    if stop > start:
        series.append(Part(stop - start, RowRange(index, start, stop)))
    if series:
        yield series
    if stop < group.num_rows:
        yield from _cut_evenly(index, stop, group.num_rows, even)


def _row_bytes(
    parquet: pq.ParquetFile, file: BinaryIO, index: int, leaves: Sequence[str], fields: Fields, rows: int
) -> Iterator[int]:
    """The bytes of the images of each row of a row group, which is read so many rows at a time."""
    reader = _with_dictionaries(parquet, file, index, _image_leaves(parquet, _schema(parquet, fields), fields))
    for batch in reader.iter_batches(rows, row_groups=[index], columns=leaves, use_threads=False):
        table = pa.Table.from_batches([batch])
        columns = (_column(table, name) for name in dict.fromkeys((fields.generated, fields.target)))
        yield from np.sum([_lengths(column) for column in columns], axis=0).tolist()


def _lengths(column: pa.ChunkedArray) -> np.ndarray:
    """The bytes of each image of a column, or of the text in its place."""
    column, _ = _single(column)
    images = column.cast(pa.large_string()) if _is_path(column.type) else _images(column)
    if pa.types.is_dictionary(images.type):
        lengths = pc.binary_length(images.dictionary).take(images.indices)
    else:
        lengths = pc.binary_length(images)
    return np.asarray(pc.fill_null(lengths, 0), np.int64)


def _check_rows(parquet: pq.ParquetFile, file: BinaryIO, index: int, size: int, leaves: Sequence[str]) -> None:
    """Check the number of rows that a footer claims, if the bytes of the row group make it hard to believe.

    Raises:
        OSError: the row group has another number of rows.
    """
    group = parquet.metadata.row_group(index)
    # An image takes bytes, unless the same one, or none, is repeated. Such rows are few or quickly counted.
    if not 0 < group.num_rows <= size:
        claimed = max(0, group.num_rows)
        image = leaves[:1]
        reader = _with_dictionaries(parquet, file, index, image)
        batches = reader.iter_batches(_COUNTED_ROWS, row_groups=[index], columns=image, use_threads=False)
        found = sum(batch.num_rows for batch in batches)
        if found != claimed or group.num_rows < 0:
            raise OSError(f"the footer claims {group.num_rows} rows in row group {index}, which has {found}")


def _open(file: BinaryIO, key: tuple[str, str] = ("", "")) -> pq.ParquetFile:
    """Open a file; `key` is its path and version, without which its footer is parsed anew."""
    parquet = pq.ParquetFile(file, metadata=_footers.get(key), **_OPTIONS)
    if all(key) and key not in _footers:
        # Without a sandbox, threads share them.
        for oldest in list(_footers)[: 1 - _MOST_FOOTERS]:
            _footers.pop(oldest, None)
        _footers[key] = parquet.metadata
    return parquet


def _with_dictionaries(parquet: pq.ParquetFile, file: BinaryIO, index: int, leaves: Iterable[str]) -> pq.ParquetFile:
    """The file, reading each leaf that a row group stores as a dictionary so that a repeated value is there once."""
    columns = map(parquet.metadata.row_group(index).column, range(parquet.metadata.num_columns))
    stored = [c.path_in_schema for c in columns if c.path_in_schema in leaves and c.has_dictionary_page]
    return pq.ParquetFile(file, metadata=parquet.metadata, read_dictionary=stored, **_OPTIONS) if stored else parquet


def _schema(parquet: pq.ParquetFile, fields: Fields) -> pa.Schema:
    """The fields of a file, and as fields of their own those in structs that a dotted name asks for.

    A list of images stands for the one that each record must have.
    """
    schema = parquet.schema_arrow
    for name in dict.fromkeys((fields.generated, fields.target, fields.id, *fields.keep)):
        if name is not None and name not in schema.names and (inner := _inner_field(schema, name)):
            schema = schema.append(inner.with_name(name))
    for index, field in enumerate(schema):
        if field.name in (fields.generated, fields.target) and _is_list(field.type) and is_image(field.type.value_type):
            schema = schema.set(index, field.with_type(field.type.value_type))
    return schema


def _inner_field(schema: pa.Schema, name: str) -> pa.Field | None:
    first, *rest = name.split(".")
    if schema.names.count(first) != 1:
        return None
    field = schema.field(first)
    for part in rest:
        if not pa.types.is_struct(field.type) or field.type.get_field_index(part) < 0:
            return None
        field = field.type.field(part)
    return field


def _column(rows: pa.Table, name: str) -> pa.ChunkedArray:
    """The column of a field, in a struct or not."""
    if name in rows.schema.names:
        return rows[name]
    first, *rest = name.split(".")
    return pc.struct_field(rows[first], rest)


def _is_list(dtype: pa.DataType) -> bool:
    return pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype)


def _single(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, list[int]]:
    """The one value of each list of a column, or the column if it has none; and the rows that have several."""
    if not _is_list(column.type):
        return column, []
    lists = column.combine_chunks()
    if pa.types.is_fixed_size_list(column.type):
        lists = lists.cast(pa.large_list(column.type.value_type))
    lengths = pc.fill_null(pc.list_value_length(lists), 0)
    first = pc.if_else(pc.equal(lengths, 1), lists.offsets[:-1], None)
    several = np.flatnonzero(np.asarray(lengths) > 1).tolist()
    return pa.chunked_array([lists.values.take(first)]), several


def _names(schema: pa.Schema, fields: Fields) -> list[str]:
    """The fields to read, without repetition."""
    kept = (field.name for field in check_schema(schema, fields))
    names = (fields.generated, fields.target, id_field(schema, fields), *kept)
    return list(dict.fromkeys(name for name in names if name is not None))


def _leaves(parquet: pq.ParquetFile, schema: pa.Schema, names: Iterable[str]) -> list[str]:
    """The columns to read, as paths. A struct contributes only its `bytes` and its `path`."""
    paths = [parquet.schema.column(index).path for index in range(len(parquet.schema))]
    leaves = []
    for name in names:
        ends = (".bytes", ".path") if pa.types.is_struct(schema.field(name).type) else ("",)
        leaves += [path for path in paths if path == name or (path.startswith(f"{name}.") and path.endswith(ends))]
    return list(dict.fromkeys(leaves))


def _image_leaves(parquet: pq.ParquetFile, schema: pa.Schema, fields: Fields) -> set[str]:
    """Those of them that hold images and nothing else."""
    images = {fields.generated, fields.target} - {id_field(schema, fields), *fields.keep}
    return {leaf for leaf in _leaves(parquet, schema, images) if not leaf.endswith(".path") or leaf in images}


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


def _read_chunk(
    rows: pa.Table, chunk: Chunk, id_name: str | None, fields: Fields, keep: Sequence[pa.Field]
) -> EncodedChunk:
    several: dict[int, str] = {}
    for name in dict.fromkeys((fields.generated, fields.target)):
        column, found = _single(rows[name])
        several.update(dict.fromkeys(found, name))
        rows = rows.set_column(rows.schema.get_field_index(name), name, column)
    encoded = _encode(rows, chunk, id_name, fields, keep)
    paths = [_paths(rows[name]) for name in (fields.generated, fields.target)]
    failures = []
    for row, name in sorted(several.items()):
        id, source = encoded["id"][row].as_py(), encoded["source"][row].as_py()
        message = f"field {name!r} holds several values, one is needed"
        failures.append(pair_failure(id, source, "read", "wrong_type", message))
    if failures:
        good = [row for row in range(len(encoded)) if row not in several]
        encoded = encoded.take(pa.array(good, pa.int64()))
        paths = [[column[row] for row in good] if column else [] for column in paths]
    named = any(path is not None for column in paths for path in column)
    return (
        _with_paths(encoded, paths, chunk, keep, failures) if named else EncodedChunk(chunk, encoded, tuple(failures))
    )


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
    if not pa.types.is_dictionary(column.type) or len(column) <= _MOST_REPEATED:
        return column.cast(pa.binary())
    array = column.unify_dictionaries().combine_chunks()
    lengths, used = pc.binary_length(array.dictionary), pc.unique(array.indices.drop_null())
    stored, repeated = (pc.sum(lengths.take(indices)).as_py() or 0 for indices in (used, array.indices))
    if repeated <= _MOST_REPEATED * stored:
        return array.cast(pa.binary())
    return pa.DictionaryArray.from_arrays(pc.index_in(array.indices, used), array.dictionary.take(used))


def _is_path(dtype: pa.DataType) -> bool:
    return is_text(dtype.value_type if pa.types.is_dictionary(dtype) else dtype)


def _paths(column: pa.ChunkedArray) -> list[str | None]:
    """The paths of the images whose bytes are not in the column."""
    if pa.types.is_struct(column.type):
        if "path" not in [part.name for part in column.type]:
            return []
        images, column = _images(column), pc.struct_field(column, "path")
        column = pc.if_else(images.is_null(), column, None)
    return texts(column) if _is_path(column.type) else []


def _with_paths(
    encoded: pa.Table,
    paths: Sequence[Sequence[str | None]],
    chunk: Chunk,
    keep: Sequence[pa.Field],
    failures: Sequence[Failure],
) -> EncodedChunk:
    """The chunk with the paths of the images that are not in `encoded`."""
    columns = [column or [None] * len(encoded) for column in paths]
    pairs = []
    for row, *paths_of_row in zip(encoded.to_pylist(), *columns, strict=True):
        generated, target = (
            row[side] if path is None else path
            for side, path in zip(("generated", "target"), paths_of_row, strict=True)
        )
        kept = tuple(row[field.name] for field in keep)
        pairs.append(PathPair(row["id"], row["source"], generated, target, kept))
    named = named_chunk(chunk, pairs, keep, failures)
    if "notes" not in encoded.schema.names:
        return named
    return replace(named, pairs=named.pairs.append_column("notes", encoded["notes"]))
