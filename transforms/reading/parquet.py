"""Parquet: the row groups of a file cut into ranges of rows, and the pairs in these."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice
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
from transforms.reading.image_paths import BASE64_START, Image, image_of
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
    """The Arrow schema of an opened Parquet file. Raises pa.ArrowException or OSError on a damaged footer."""
    return _open(file).schema_arrow


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
    check_schema(parquet.schema_arrow, fields)
    leaves = _leaves(parquet, fields, _names(parquet.schema_arrow, fields))
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
            small = [*small, Part(group.num_rows, RowRange(index, 0, group.num_rows))]
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
    schema = parquet.schema_arrow
    id_name = id_field(schema, fields)
    leaves = _leaves(parquet, fields, _names(schema, fields))
    images = _image_leaves(parquet, fields)
    for group, chunks_of_group in groupby(series, key=lambda chunk: chunk.place.row_group):
        chunks = list(chunks_of_group)
        ranges: list[RowRange] = [chunk.place for chunk in chunks]
        if group >= parquet.num_row_groups or ranges[-1].stop > parquet.metadata.row_group(group).num_rows:
            raise OSError("the file has changed since it was listed")
        # Chunks of equal size start at a multiple of it, so that a batch of that size is one chunk. Threads would read
        # the columns by turns, and an object store would fetch its large blocks again and again.
        reader = _with_dictionaries(parquet, file, group, images)
        records = len(chunks[0].records(fields))
        batches = reader.iter_batches(records, row_groups=[group], columns=leaves, use_threads=False)
        for chunk, rows in zip(chunks, _cut(batches, ranges), strict=True):
            rows = _flat(rows, fields)
            if _holds_bytes(rows, fields):
                yield EncodedChunk(chunk, _encode(rows, chunk, id_name, fields, keep))
            else:
                yield encode_records(chunk, _records(rows, id_name, fields, keep), fields, keep)


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
    leaves = _leaves(parquet, fields, _image_names(fields))
    mean = ceil(_needed_bytes(group, leaves) / group.num_rows)
    even = min(chunk_pairs, max(1, chunk_bytes // mean))
    series: list[Part] = []
    start = stop = needed = 0
    readable = True
    try:
        for size in _row_bytes(parquet, file, index, leaves, fields, ceil(even / _MEASURED_SHARE)):
            if stop > start and (stop - start == chunk_pairs or needed + size > chunk_bytes):
                series.append(Part(stop - start, RowRange(index, start, stop)))
                first, next = (row * MAX_SERIES_PER_ROW_GROUP // group.num_rows for row in (start, stop))
                if first != next:
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
    reader = _with_dictionaries(parquet, file, index, _image_leaves(parquet, fields))
    for batch in reader.iter_batches(rows, row_groups=[index], columns=leaves, use_threads=False):
        table = _flat(pa.Table.from_batches([batch]), fields)
        columns = (table[name].chunks for name in _image_names(fields))
        yield from np.sum([np.concatenate(list(map(_lengths, pieces))) for pieces in columns], axis=0).tolist()


def _lengths(images: pa.Array) -> np.ndarray:
    """The bytes of each image, or of the text in its place."""
    images = _storage(images)
    dtype = images.type
    if is_list(dtype) and pa.types.is_primitive(dtype.value_type):
        return _counts(images) * (dtype.value_type.bit_width // 8)
    if is_list(dtype):
        total, ends = (np.append(0, np.cumsum(sizes)) for sizes in (_lengths(images.flatten()), _counts(images)))
        return np.diff(total[ends])
    if pa.types.is_struct(dtype):
        has_bytes = dtype.get_field_index("bytes") >= 0
        return _lengths(pc.struct_field(images, "bytes")) if has_bytes else np.zeros(len(images), np.int64)
    if pa.types.is_dictionary(dtype):
        lengths = pa.array(_lengths(images.dictionary)).take(images.indices)
    else:
        lengths = pc.binary_length(images.cast(pa.large_string() if is_text(dtype) else pa.large_binary()))
    return np.asarray(pc.fill_null(lengths, 0), np.int64)


def _storage(values: pa.Array) -> pa.Array:
    """The values as they are stored, if they are of an extension type such as a tensor's."""
    return values.storage if isinstance(values, pa.ExtensionArray) else values


def _counts(lists: pa.Array) -> np.ndarray:
    """How many values each list holds."""
    return np.asarray(pc.fill_null(pc.list_value_length(lists), 0), np.int64)


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
        while len(_footers) >= _MOST_FOOTERS:
            del _footers[next(iter(_footers))]
        _footers[key] = parquet.metadata
    return parquet


def _with_dictionaries(parquet: pq.ParquetFile, file: BinaryIO, index: int, leaves: Iterable[str]) -> pq.ParquetFile:
    """The file, reading each leaf that a row group stores as a dictionary so that a repeated value is there once."""
    columns = map(parquet.metadata.row_group(index).column, range(parquet.metadata.num_columns))
    stored = [
        c.path_in_schema
        for c in columns
        if c.path_in_schema in leaves and c.has_dictionary_page and c.physical_type == "BYTE_ARRAY"
    ]
    return pq.ParquetFile(file, metadata=parquet.metadata, read_dictionary=stored, **_OPTIONS)


def _names(schema: pa.Schema, fields: Fields) -> list[str]:
    """The fields to read, without repetition."""
    kept = (field.name for field in check_schema(schema, fields))
    names = (*fields.generated, fields.target, id_field(schema, fields), *kept)
    return list(dict.fromkeys(name for name in names if name is not None))


def _image_names(fields: Fields) -> list[str]:
    """The fields of images, without repetition."""
    return list(dict.fromkeys((*fields.generated, fields.target)))


def _leaves(parquet: pq.ParquetFile, fields: Fields, names: Iterable[str]) -> list[str]:
    """The columns to read, as paths. A struct contributes only its `bytes` and its `path`."""
    schema = with_nested(parquet.schema_arrow, fields)
    paths = [parquet.schema.column(index).path for index in range(len(parquet.schema))]
    leaves = []
    for name in names:
        dtype = schema.field(name).type
        while is_list(dtype):
            dtype = dtype.value_type
        ends = (".bytes", ".path") if pa.types.is_struct(dtype) else ("",)
        leaves += [path for path in paths if path == name or (path.startswith(f"{name}.") and path.endswith(ends))]
    return list(dict.fromkeys(leaves))


def _image_leaves(parquet: pq.ParquetFile, fields: Fields) -> set[str]:
    """Those of them that hold images and nothing else."""
    images = set(_image_names(fields)) - {id_field(parquet.schema_arrow, fields), *fields.keep}
    return {leaf for leaf in _leaves(parquet, fields, images) if not leaf.endswith(".path") or leaf in images}


def _flat(rows: pa.Table, fields: Fields) -> pa.Table:
    """The rows with the nested fields that are asked for as columns of their own."""
    for field in list(with_nested(rows.schema, fields))[rows.num_columns :]:
        first, *parts = field.name.split(".")
        rows = rows.append_column(field.name, pc.struct_field(rows[first], parts))
    return rows


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
    if not pa.types.is_dictionary(column.type) or len(column) <= _MOST_REPEATED:
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
    return not fields.array_type and all(_is_bytes_or_null(rows[name]) for name in _image_names(fields))


def _is_bytes_or_null(column: pa.ChunkedArray) -> bool:
    dtype = column.type
    if not pa.types.is_struct(dtype):
        is_plain = is_bytes(dtype.value_type if pa.types.is_dictionary(dtype) else dtype)
        return is_plain and not any(map(_may_hold_base64, column.chunks))
    if dtype.get_field_index("bytes") < 0:
        return False
    images = pc.struct_field(column, "bytes")
    if dtype.get_field_index("path") >= 0:
        is_path = pc.and_(pc.is_null(images), pc.is_valid(pc.struct_field(column, "path")))
        if pc.any(is_path).as_py():
            return False
    return _is_bytes_or_null(images)


def _may_hold_base64(images: pa.Array) -> bool:
    stored = images.dictionary if pa.types.is_dictionary(images.type) else images
    return bool(pc.any(pc.match_substring_regex(stored.cast(pa.large_binary()), BASE64_START)).as_py())


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
    images = {name: _images_of(rows[name], name, fields) for name in _image_names(fields)}
    kept = {field.name: fit_kept(rows[field.name], field.type) for field in keep if field.name in rows.schema.names}
    for row, id in enumerate(ids):
        values = {name: (column[row].as_py(), row not in lost) for name, (column, lost) in kept.items()}
        yield _Record(id, {name: column[row] for name, column in images.items()}, values)


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


def _images_of(column: pa.ChunkedArray, name: str, fields: Fields) -> list[Image | RecordError]:
    """The image of each value, or what is wrong with it; one of a dictionary is made once."""
    values = list(chain.from_iterable(map(_pylist, column.chunks)))
    distinct = {id(value): value for value in values}
    images = {key: _image_of(value, name, fields) for key, value in distinct.items()}
    return [images[id(value)] for value in values]


def _image_of(value: Any, name: str, fields: Fields) -> Image | RecordError:
    try:
        return image_of(_array(value) if isinstance(value, pa.Array) else value, name, fields)
    except RecordError as error:
        return error


def _pylist(column: pa.Array) -> list[Any]:
    """Python's values; equal ones of a dictionary are one object."""
    dtype = column.type
    if pa.types.is_dictionary(dtype):
        stored = _pylist(column.dictionary)
        return [None if index is None else stored[index] for index in column.indices.to_pylist()]
    if is_array(dtype):
        # As Python's numbers they would take many times the memory.
        return [value.values if value.is_valid else None for value in _storage(column)]
    if is_list(dtype):
        values, counts = iter(_pylist(column.flatten())), _counts(column).tolist()
        return [list(islice(values, count)) for count in counts]
    if pa.types.is_struct(dtype):
        parts = [part.name for part in dtype if part.name in ("bytes", "path")]
        columns = [_pylist(pc.struct_field(column, part)) for part in parts]
        return [dict(zip(parts, values, strict=True)) for values in zip(*columns, strict=True)]
    # Arrow does not check that text is UTF-8, and a path need not be.
    return texts(pa.chunked_array([column])) if is_text(dtype) else column.to_pylist()
