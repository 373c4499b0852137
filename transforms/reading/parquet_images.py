"""The images in a column of Parquet: bytes, base64, paths, arrays, and what is wrong with a value that is none."""

from collections.abc import Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.reading.fields import is_array, is_bytes, is_list, is_text, texts
from transforms.reading.image_paths import BASE64_START, Image, image_of
from transforms.reading.record_error import RecordError
from transforms.schema import Fields

# Images whose bytes are repeated more often than this, on average, stay a dictionary.
_MOST_REPEATED = 2


def image_bytes(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
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


def alternating(columns: Sequence[pa.ChunkedArray | pa.Array]) -> pa.ChunkedArray | pa.Array:
    """The first values of all columns, then the second values, and so on."""
    if len(columns) == 1:
        return columns[0]
    if any(pa.types.is_dictionary(column.type) for column in columns):
        columns = [column.dictionary_encode() for column in columns]
    pieces = [piece for column in columns for piece in getattr(column, "chunks", [column])]
    order = np.arange(len(columns) * len(columns[0])).reshape(len(columns), -1).T.ravel()
    return pa.chunked_array(pieces).unify_dictionaries().combine_chunks().take(pa.array(order))


def repeated(column: pa.ChunkedArray | pa.Array, rows: pa.Array) -> pa.DictionaryArray:
    """The values of these rows, each of whose bytes are there once."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(array.type):
        return array.take(rows)
    return pa.DictionaryArray.from_arrays(rows.cast(pa.int32()), array)


def holds_bytes(rows: pa.Table, fields: Fields) -> bool:
    """True if every image that is not null lies in the rows as it is."""
    return not fields.array_type and all(_is_bytes_or_null(rows[name]) for name in fields.images)


def _is_bytes_or_null(column: pa.ChunkedArray) -> bool:
    dtype = column.type
    if not pa.types.is_struct(dtype):
        stored = dtype.value_type if pa.types.is_dictionary(dtype) else dtype
        is_plain = is_bytes(stored) or pa.types.is_null(stored)
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


def images_of(column: pa.ChunkedArray, name: str, fields: Fields) -> list[Image | RecordError]:
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
        return [value.values if value.is_valid else None for value in storage(column)]
    if is_list(dtype):
        values, counts = iter(_pylist(column.flatten())), counts_of(column).tolist()
        return [list(islice(values, count)) for count in counts]
    if pa.types.is_struct(dtype):
        parts = [part.name for part in dtype if part.name in ("bytes", "path")]
        columns = [_pylist(pc.struct_field(column, part)) for part in parts]
        return [dict(zip(parts, values, strict=True)) for values in zip(*columns, strict=True)]
    # Arrow does not check that text is UTF-8, and a path need not be.
    return texts(pa.chunked_array([column])) if is_text(dtype) else column.to_pylist()


def storage(values: pa.Array) -> pa.Array:
    """The values as they are stored, if they are of an extension type such as a tensor's."""
    return values.storage if isinstance(values, pa.ExtensionArray) else values


def counts_of(lists: pa.Array) -> np.ndarray:
    """How many values each list holds."""
    return np.asarray(pc.fill_null(pc.list_value_length(lists), 0), np.int64)
