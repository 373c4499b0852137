"""Optimized images as files: what is in them, and that no id can choose where they go."""

from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.pictures import encode, noise
from tensorflow.core.example.example_pb2 import Example

from transforms.reading.byte_source import PlainSource
from transforms.reading.tfrecord_container import find_spans, read_data
from transforms.schema import OPTIMIZED_SCHEMA
from transforms.writing.optimized_images import OPTIMIZED_FORMATS, png_name

CHUNK = "in-0123abcd-000000000-000000002"
ROWS = [{"id": f"pair/{n}", "source": f"in.parquet#{n}", "image": encode(noise(n, 5, 4))} for n in range(2)]
IMAGES = pa.Table.from_pylist(ROWS, schema=OPTIMIZED_SCHEMA)


def test_parquet():
    ((name, content),) = OPTIMIZED_FORMATS["parquet"](IMAGES, CHUNK).items()
    assert name == f"{CHUNK}.parquet"
    assert pq.read_table(BytesIO(content)).to_pylist() == ROWS


def test_tfrecord():
    ((name, content),) = OPTIMIZED_FORMATS["tfrecord"](IMAGES, CHUNK).items()
    assert name == f"{CHUNK}.tfrecord"
    source = PlainSource(BytesIO(content))
    records = [read_data(source, span) for span in find_spans(source)]
    assert all(intact for _, intact in records)
    features = [Example.FromString(data).features.feature for data, _ in records]
    read = [{name: one[name].bytes_list.value[0] for name in OPTIMIZED_SCHEMA.names} for one in features]
    assert read == [{k: v if k == "image" else v.encode() for k, v in row.items()} for row in ROWS]


def test_png():
    files = OPTIMIZED_FORMATS["png"](IMAGES, CHUNK)
    assert list(files.values()) == [row["image"] for row in ROWS]
    assert all(name.startswith("pair_") and name.endswith(".png") for name in files)


@pytest.mark.parametrize(
    "id", ["a", "../../etc/passwd", "/root", "a\\b", "", ".", "..", "x" * 5000, "日本", "a\0b", "con\n", "-rf", "*?[]"]
)
def test_png_names_are_safe(id):
    name = png_name(id, "in.parquet#0")
    assert len(name) < 120
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert name[0] not in ".-_"


def test_png_names_tell_pairs_apart():
    names = {png_name(id, source) for id in ("a", "A", "a/b", "a_b", "a b") for source in ("in#0", "in#1")}
    assert len(names) == 10
