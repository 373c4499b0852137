"""The formats of optimized images: Parquet, TFRecord, or a PNG file for each."""

import hashlib
import re
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.reading.tfrecord_container import frame
from transforms.worker.tensorflow_import import import_tensorflow

_MAX_SLUG = 80


def png_name(id: str, source: str) -> str:
    """A safe file name for a pair: what can be kept of its id, and a hash that tells equal ids apart.

    Ids come from the data: they may hold slashes, be of any length, or repeat.
    """
    slug = re.sub(r"[^A-Za-z0-9._-]+", "_", id)[:_MAX_SLUG].lstrip("._-") or "pair"
    digest = hashlib.sha256(f"{id}\0{source}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{slug}-{digest}.png"


def _parquet(images: pa.Table, chunk: str) -> dict[str, bytes]:
    sink = pa.BufferOutputStream()
    # PNG is compressed already. Small pages spare readers from holding many images at once.
    pq.write_table(images, sink, compression="none", use_dictionary=False, data_page_size=1 << 20)
    return {f"{chunk}.parquet": sink.getvalue().to_pybytes()}


def tfrecord(values: Mapping[str, str | bytes]) -> bytes:
    """A record of a TFRecord file: a tf.train.Example with each value as a bytes feature."""
    import_tensorflow()
    from tensorflow.core.example.example_pb2 import Example

    example = Example()
    for name, value in values.items():
        example.features.feature[name].bytes_list.value.append(value.encode() if isinstance(value, str) else value)
    # Without this, protobuf may order the map differently each time.
    return frame(example.SerializeToString(deterministic=True))


def _tfrecord(images: pa.Table, chunk: str) -> dict[str, bytes]:
    return {f"{chunk}.tfrecord": b"".join(map(tfrecord, images.to_pylist()))}


def _png(images: pa.Table, chunk: str) -> dict[str, bytes]:
    return {png_name(row["id"], row["source"]): row["image"] for row in images.to_pylist()}


# Each turns a chunk's table of `OPTIMIZED_SCHEMA` (`source` also names the record that holds the target) and the
# chunk's name into the content of files by name. Add a row to add a format.
OPTIMIZED_FORMATS = {"parquet": _parquet, "tfrecord": _tfrecord, "png": _png}
