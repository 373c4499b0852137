"""Hostile containers: each costs itself a failure that says what happened, at once, and the next file is read."""

import base64
import gzip
import os
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.parquet.encryption import CryptoFactory, EncryptionConfiguration, KmsClient, KmsConnectionConfig
from support.lying_parquet import claim_levels, claim_rows, lie

from transforms.reading import tfrecord_container
from transforms.reading.input_files import InputFile
from transforms.reading.list_chunks import check_fields, detect_format, list_chunks
from transforms.reading.read_chunks import read_series
from transforms.reading.tfrecord_container import frame, masked_crc
from transforms.schema import EncodedChunk, Fields
from transforms.worker.sandbox import Sandbox

TABLE = pa.table({"id": ["a", "b"], "generated": [b"g" * 50, b"h" * 50], "target": [b"t" * 50, b"u" * 50]})


def read(path: Path, sandbox: Sandbox = Sandbox()) -> list[EncodedChunk]:
    file = InputFile(str(path), path.stat().st_size, 0.0)
    listed = list(list_chunks(file, "auto", Fields(), sandbox=sandbox))
    return [encoded for series in listed for encoded in read_series(series, Fields(), sandbox=sandbox)]


def reasons(path: Path, sandbox: Sandbox = Sandbox()) -> list[tuple[str, str, str]]:
    return [(f.scope, f.stage, f.reason) for encoded in read(path, sandbox) for f in encoded.failures]


def test_a_footer_that_aborts_the_process(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(lie(TABLE, claim_levels))
    assert reasons(path) == [("file", "list", "crashed")]
    assert check_fields(str(path), "parquet", Fields()) in (None, ())


class Keys(KmsClient):
    """Keys that are wrapped in nothing."""

    def __init__(self, settings: KmsConnectionConfig) -> None:
        super().__init__()

    def wrap_key(self, key: bytes, name: str) -> bytes:
        return base64.b64encode(key)


@pytest.mark.parametrize("plaintext_footer", [True, False])
def test_an_encrypted_file_is_called_so(tmp_path: Path, plaintext_footer: bool) -> None:
    path = tmp_path / "a.parquet"
    settings = EncryptionConfiguration("a", column_keys={"b": ["generated"]}, plaintext_footer=plaintext_footer)
    encryption = CryptoFactory(Keys).file_encryption_properties(KmsConnectionConfig(), settings)
    with pq.ParquetWriter(path, TABLE.schema, encryption_properties=encryption) as writer:
        writer.write_table(TABLE)
    (encoded,) = read(path)
    assert encoded.failures[0].reason == "unreadable_file"
    assert "the file is encrypted" in encoded.failures[0].message
    assert detect_format(str(path.rename(tmp_path / "a"))) == "parquet"


@pytest.mark.parametrize("rows", [-5, 1000, 10**9, 2**40, 2**62])
def test_a_footer_that_claims_rows(tmp_path: Path, rows: int) -> None:
    """No chunk is made of rows that are not there."""
    path = tmp_path / "a.parquet"
    path.write_bytes(lie(TABLE, claim_rows(rows)))
    assert reasons(path) == [("file", "list", "unreadable_file")]


@pytest.mark.parametrize("store_schema", [True, False])
def test_one_image_that_many_rows_share_is_there_once(tmp_path: Path, store_schema: bool) -> None:
    """256 rows of 20 MB are a file of 10 kB."""
    image = pa.array([os.urandom(1024) * (20 << 10)], pa.binary())
    repeated = pa.DictionaryArray.from_arrays(pa.array([0, None, *[0] * 254], pa.int32()), image)
    table = pa.table({"generated": repeated, "target": repeated})
    path = tmp_path / "a.parquet"
    options = {"dictionary_pagesize_limit": 1 << 30, "compression": "zstd", "store_schema": store_schema}
    pq.write_table(table, path, **options)
    (encoded,) = read(path)
    assert encoded.failures == ()
    assert encoded.pairs.nbytes < 50 << 20
    assert encoded.pairs["generated"][1].as_py() is None
    assert encoded.pairs["target"][255].as_py() == image[0].as_py()


@pytest.mark.heavy
def test_a_page_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    images = pa.array([b"\0" * (40 << 20)] * 6, pa.binary())
    table = pa.table({"generated": images, "target": [b"x"] * 6})
    pq.write_table(table, path, use_dictionary=False, compression="zstd")
    found = reasons(path, Sandbox(memory=120 << 20))
    assert found == [("file", "read", "out_of_memory")] * len(found)


def header(length: int) -> bytes:
    packed = struct.pack("<Q", length)
    return packed + struct.pack("<I", masked_crc(packed))


@pytest.mark.parametrize("packed", [False, True])
def test_a_long_record_is_skipped(tmp_path: Path, packed: bool) -> None:
    """By its header: the records after it are read, and no more of it is held than a block."""
    good = frame(b"\x0a\x00")
    long = header(300 << 20)
    path = tmp_path / "a.tfrecord"
    with gzip.open(path, "wb", 1) if packed else path.open("wb") as file:
        file.write(good + long)
        for _ in range(300):
            file.write(bytes(1 << 20))
        file.write(bytes(4) + good)
    found = [reason for _, _, reason in reasons(path, Sandbox(memory=300 << 20))]
    assert found == ["missing_field", "long_record", "missing_field"]


@pytest.mark.parametrize("packed", [False, True])
def test_a_record_without_room_costs_no_other(tmp_path: Path, packed: bool) -> None:
    good, large = frame(b"\x0a\x00"), frame(bytes(40 << 20))
    path = tmp_path / "a.tfrecord"
    path.write_bytes(gzip.compress(good + large + good, 1) if packed else good + large + good)
    found = [reason for _, _, reason in reasons(path, Sandbox(memory=100 << 20))]
    assert found == ["missing_field", "out_of_memory", "missing_field"]


@pytest.mark.parametrize("packed", [False, True])
def test_a_long_record_that_breaks_off(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "a.tfrecord"
    data = header(300 << 20) + b"abc"
    path.write_bytes(gzip.compress(data) if packed else data)
    assert reasons(path) == [("pair", "read", "truncated_record")]


def test_headers_of_records_that_are_none_take_no_time(tmp_path: Path) -> None:
    """Each claims half of the file, so to check them all would take hours, and the sandbox would end it."""
    path = tmp_path / "a.tfrecord"
    size = 4 << 20
    path.write_bytes(b"\x01" * 12 + header(size // 2) * (size // 12))
    assert reasons(path, Sandbox(seconds=100)) == [("pair", "read", "damaged_header")]
    assert size < tfrecord_container.MAX_RECORD_BYTES


def test_examples_are_read_without_tensorflow(tmp_path: Path) -> None:
    """As TensorFlow writes them: both define the same message."""
    from tensorflow.train import Example

    from transforms.reading.example_proto import example_class

    values = {"bytes_list": [b"a", b"\xff"], "float_list": [0.5, -1.0], "int64_list": [-3, 2**40], "none": None}
    example = Example()
    for name, value in values.items():
        feature = example.features.feature[name]
        if value:
            getattr(feature, name).value.extend(value)
    again = example_class().FromString(example.SerializeToString())
    for name, value in values.items():
        feature = again.features.feature[name]
        assert feature.WhichOneof("kind") == (name if value else None)
        assert value is None or list(getattr(feature, name).value) == value
