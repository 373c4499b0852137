"""An opened Parquet file: its footer, kept between chunks, and the columns that hold the fields of a run."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms.reading.fields import check_schema, id_field, is_list, with_nested
from transforms.schema import Fields

# Without a read buffer, or with pre-buffering, pyarrow loads a whole column chunk at once, however large.
READ_BUFFER_BYTES = 1 << 20
_OPTIONS = {"buffer_size": READ_BUFFER_BYTES, "pre_buffer": False, "page_checksum_verification": True}

# The length of the footer, and the magic, at the end of a file (github.com/apache/parquet-format, Encryption.md). If
# columns alone are encrypted, that length includes a nonce and a tag behind the footer.
_TAIL = struct.Struct("<I4s")
_ENCRYPTED_MAGIC = b"PARE"
_SIGNATURE_BYTES = 28
_ENCRYPTED = "the file is encrypted, and PairLoss takes no keys; decrypt it first"

# Footers of the files that this process read last, by path and version: with many row groups one takes longer to parse
# than a chunk to read.
_footers: dict[tuple[str, str], pq.FileMetaData] = {}
_MOST_FOOTERS = 4


@dataclass(frozen=True)
class RowRange:
    """The place of a Parquet chunk: rows `start` to `stop` of a row group."""

    row_group: int
    start: int
    stop: int


def open_parquet(file: BinaryIO, key: tuple[str, str] = ("", "")) -> pq.ParquetFile:
    """Open a file; `key` is its path and version, without which its footer is parsed anew.

    Raises:
        pa.ArrowException, OSError: its footer is damaged, or it is encrypted.
    """
    known = _footers.get(key)
    tail = b"" if known else _tail(file)
    if tail.endswith(_ENCRYPTED_MAGIC):
        raise OSError(_ENCRYPTED)
    parquet = pq.ParquetFile(file, metadata=known, **_OPTIONS)
    # Arrow aborts the process when it is asked for an encrypted column.
    if tail and _TAIL.unpack(tail)[0] - parquet.metadata.serialized_size == _SIGNATURE_BYTES:
        raise OSError(_ENCRYPTED)
    if all(key) and key not in _footers:
        # Without a sandbox, threads share them.
        for oldest in list(_footers)[: 1 - _MOST_FOOTERS]:
            _footers.pop(oldest, None)
        _footers[key] = parquet.metadata
    return parquet


def _tail(file: BinaryIO) -> bytes:
    file.seek(max(0, file.seek(0, 2) - _TAIL.size))
    return file.read()


def with_dictionaries(parquet: pq.ParquetFile, file: BinaryIO, index: int, leaves: Iterable[str]) -> pq.ParquetFile:
    """The file, reading each leaf that a row group stores as a dictionary so that a repeated value is there once."""
    columns = map(parquet.metadata.row_group(index).column, range(parquet.metadata.num_columns))
    stored = [
        c.path_in_schema
        for c in columns
        if c.path_in_schema in leaves and c.has_dictionary_page and c.physical_type == "BYTE_ARRAY"
    ]
    return pq.ParquetFile(file, metadata=parquet.metadata, read_dictionary=stored, **_OPTIONS) if stored else parquet


def field_names(schema: pa.Schema, fields: Fields) -> list[str]:
    """The fields to read, without repetition."""
    kept = (field.name for field in check_schema(schema, fields))
    names = (*fields.images, id_field(schema, fields), *kept)
    return list(dict.fromkeys(name for name in names if name is not None))


def leaves_of(parquet: pq.ParquetFile, fields: Fields, names: Iterable[str]) -> list[str]:
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


def image_leaves(parquet: pq.ParquetFile, fields: Fields) -> set[str]:
    """Those of them that hold images and nothing else."""
    images = set(fields.images) - {id_field(parquet.schema_arrow, fields), *fields.keep}
    return {leaf for leaf in leaves_of(parquet, fields, images) if not leaf.endswith(".path") or leaf in images}


def with_nested_columns(rows: pa.Table, fields: Fields) -> pa.Table:
    """The rows with the nested fields that are asked for as columns of their own."""
    for field in list(with_nested(rows.schema, fields))[rows.num_columns :]:
        first, *parts = field.name.split(".")
        rows = rows.append_column(field.name, pc.struct_field(rows[first], parts))
    return rows
