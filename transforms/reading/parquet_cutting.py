"""The row groups of a Parquet file cut into the ranges of rows that become chunks."""

from collections.abc import Iterator, Sequence
from math import ceil
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms.reading.fields import check_schema, is_list, is_text
from transforms.reading.parquet_file import (
    RowRange,
    field_names,
    image_leaves,
    leaves_of,
    open_parquet,
    with_dictionaries,
    with_nested_columns,
)
from transforms.reading.parquet_images import counts_of, storage
from transforms.schema import Fields, Part

MAX_SERIES_PER_ROW_GROUP = 16
_COUNTED_ROWS = 1 << 16
# Row groups beyond the limit of a chunk are measured, this share of what a chunk may hold at a time.
_MEASURED_SHARE = 16


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
    parquet = open_parquet(file)
    check_schema(parquet.schema_arrow, fields)
    leaves = leaves_of(parquet, fields, field_names(parquet.schema_arrow, fields))
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
    leaves = leaves_of(parquet, fields, fields.images)
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
        # Reading will find the damage, and blame it on the chunks that it lies in.
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
    """The bytes of the images of each row of a row group, which is read `rows` rows at a time."""
    reader = with_dictionaries(parquet, file, index, image_leaves(parquet, fields))
    for batch in reader.iter_batches(rows, row_groups=[index], columns=leaves, use_threads=False):
        table = with_nested_columns(pa.Table.from_batches([batch]), fields)
        columns = (table[name].chunks for name in fields.images)
        yield from np.sum([np.concatenate(list(map(_lengths, pieces))) for pieces in columns], axis=0).tolist()


def _lengths(images: pa.Array) -> np.ndarray:
    """The bytes of each image, or of the text in its place."""
    images = storage(images)
    dtype = images.type
    if is_list(dtype) and pa.types.is_primitive(dtype.value_type):
        return counts_of(images) * (dtype.value_type.bit_width // 8)
    if is_list(dtype):
        total, ends = (np.append(0, np.cumsum(sizes)) for sizes in (_lengths(images.flatten()), counts_of(images)))
        return np.diff(total[ends])
    if pa.types.is_struct(dtype):
        has_bytes = dtype.get_field_index("bytes") >= 0
        return _lengths(pc.struct_field(images, "bytes")) if has_bytes else np.zeros(len(images), np.int64)
    if pa.types.is_dictionary(dtype):
        lengths = pa.array(_lengths(images.dictionary)).take(images.indices)
    else:
        lengths = pc.binary_length(images.cast(pa.large_string() if is_text(dtype) else pa.large_binary()))
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
        reader = with_dictionaries(parquet, file, index, image)
        batches = reader.iter_batches(_COUNTED_ROWS, row_groups=[index], columns=image, use_threads=False)
        found = sum(batch.num_rows for batch in batches)
        if found != claimed or group.num_rows < 0:
            raise OSError(f"the footer claims {group.num_rows} rows in row group {index}, which has {found}")


def _needed_bytes(group: pq.RowGroupMetaData, leaves: Sequence[str]) -> int:
    columns = (group.column(i) for i in range(group.num_columns))
    return max(1, sum(c.total_uncompressed_size for c in columns if c.path_in_schema in leaves))
