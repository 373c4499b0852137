"""Small input files, Parquet and TFRecord, and single TFRecord frames that tests damage."""

import gzip
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tensorflow.core.example.example_pb2 import Example

from transforms.reading.input_files import InputFile
from transforms.reading.tfrecord_container import masked_crc


def example(features: Mapping[str, Any]) -> bytes:
    """A serialized Example; a list gives a feature several values, None gives it no value."""
    message = Example()
    for name, value in features.items():
        feature = message.features.feature[name]
        for item in value if isinstance(value, list) else [] if value is None else [value]:
            if isinstance(item, bytes | str):
                raw = item.encode() if isinstance(item, str) else item
                feature.bytes_list.value.append(raw)
            elif isinstance(item, float):
                feature.float_list.value.append(item)
            else:
                feature.int64_list.value.append(item)
        if value is None:
            feature.bytes_list.SetInParent()
    return message.SerializeToString()


def frame(data: bytes) -> bytes:
    """The data framed as a TFRecord record."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc(length)) + data + struct.pack("<I", masked_crc(data))


def write(path: Path, content: bytes) -> InputFile:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return input_file(path)


def write_tfrecord(path: Path, rows: Sequence[Mapping[str, Any]]) -> InputFile:
    """Write a TFRecord file of Examples, gzipped if the name ends in .gz."""
    content = b"".join(frame(example(row)) for row in rows)
    return write(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def write_parquet(path: Path, table: pa.Table, **options: Any) -> InputFile:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return input_file(path)


def input_file(path: Path) -> InputFile:
    stat = path.stat()
    return InputFile(str(path), stat.st_size, stat.st_mtime)


def rows(count: int) -> list[dict[str, Any]]:
    """Pairs with short texts of various lengths in place of images."""
    return [
        {
            "id": f"pair-{i}",
            "generated": f"generated {i} ".encode() * (i % 5 + 1),
            "target": f"target {i}".encode(),
            "label": i,
        }
        for i in range(count)
    ]
