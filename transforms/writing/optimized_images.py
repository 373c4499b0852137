"""Write optimized images: as Parquet, as TFRecord, or each as a PNG file."""

import hashlib
import re
import struct

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystems import FileSystems

from transforms.reading.tfrecord_container import masked_crc
from transforms.schema import Chunk
from transforms.worker.tensorflow_import import import_tensorflow

_MAX_SLUG = 80


def optimized_files(images: pa.Table, chunk: Chunk, directory: str, format: str) -> dict[str, bytes]:
    """The files of a chunk's optimized images, content by path.

    Args:
        images: table with `id`, `source` (the pair's record, and with it the target) and `image`, a PNG.
        chunk: where the pairs come from.
        directory: where the files lie.
        format: `parquet` or `tfrecord`, one file with these three fields; `png`, one file a pair.
    """
    if format == "png":
        return {
            FileSystems.join(directory, png_name(row["id"], row["source"])): row["image"] for row in images.to_pylist()
        }
    encode = {"parquet": _parquet, "tfrecord": _tfrecord}[format]
    return {FileSystems.join(directory, f"{chunk.name}.{format}"): encode(images)}


def png_name(id: str, source: str) -> str:
    """A file name for a pair: its id, as far as it is safe, and a hash that tells equal ids apart.

    An id is data: it may hold slashes, be as long as it likes, or be the same twice.
    """
    slug = re.sub(r"[^A-Za-z0-9._-]+", "_", id)[:_MAX_SLUG].lstrip("._-") or "pair"
    digest = hashlib.sha256(f"{id}\0{source}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{slug}-{digest}.png"


def _parquet(images: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    # PNG is compressed; a page of its own for every image, so that readers need not hold many.
    pq.write_table(images, sink, compression="none", use_dictionary=False, data_page_size=1 << 20)
    return sink.getvalue().to_pybytes()


def _tfrecord(images: pa.Table) -> bytes:
    import_tensorflow()
    from tensorflow.core.example.example_pb2 import Example

    records = []
    for row in images.to_pylist():
        example = Example()
        for name, value in row.items():
            example.features.feature[name].bytes_list.value.append(value.encode() if isinstance(value, str) else value)
        data = example.SerializeToString(deterministic=True)
        length = struct.pack("<Q", len(data))
        records += [length, struct.pack("<I", masked_crc(length)), data, struct.pack("<I", masked_crc(data))]
    return b"".join(records)
