"""Reading chunks of both formats: nothing lost, nothing read twice, damage confined and told."""

import gzip
import os
import shutil
from dataclasses import replace
from itertools import chain

import numpy as np
import pyarrow as pa
import pytest
from apache_beam.io.filesystems import FileSystems
from google.api_core.exceptions import ServiceUnavailable
from support import shards

from transforms.reading.input_files import InputFile
from transforms.reading.list_chunks import list_chunks
from transforms.reading.read_chunks import READ_REASONS, read_series
from transforms.schema import EncodedChunk, Fields, encoded_schema

FIELDS = Fields(keep=("label",))
KEEP = (pa.field("label", pa.int64()),)
COUNT = 11
ROWS = shards.rows(COUNT)
POSITIONS = {"first": 0, "middle": 5, "last": COUNT - 1}


def read_all(file: InputFile, chunk_pairs: int = 512, fields: Fields = FIELDS, keep=KEEP) -> list[EncodedChunk]:
    series = list(list_chunks(file, "auto", fields, chunk_pairs))
    encoded = [chunk for one in series for chunk in read_series(one, fields, keep)]
    assert [chunk.chunk for chunk in encoded] == list(chain(*series))
    for chunk in encoded:
        assert chunk.pairs.schema == encoded_schema(keep)
        assert {failure.reason for failure in chunk.failures} <= set(READ_REASONS)
        lost = [failure for failure in chunk.failures if failure.scope == "file"]
        assert not lost or (len(lost) == len(chunk.failures) == 1 and not len(chunk.pairs))
        assert lost or len(chunk.pairs) + len(chunk.failures) == chunk.chunk.pairs
    return encoded


def pairs_of(encoded: list[EncodedChunk]) -> list[dict]:
    return [row for chunk in encoded for row in chunk.pairs.to_pylist()]


def failures_of(encoded: list[EncodedChunk]):
    return [failure for chunk in encoded for failure in chunk.failures]


def expected_rows(path, numbers=range(COUNT)) -> list[dict]:
    return [
        {
            "id": f"pair-{i}",
            "source": f"{path}#{i}",
            **{name: ROWS[i][name] for name in ("generated", "target", "label")},
        }
        for i in numbers
    ]


def frames(rows=ROWS) -> list[bytes]:
    return [shards.frame(shards.example(row)) for row in rows]


@pytest.mark.parametrize("chunk_pairs", [1, 2, 3, 5, COUNT, 512])
class TestEveryChunking:
    @pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip"])
    @pytest.mark.parametrize("row_group_size", [1, 4, 512])
    def test_parquet(self, tmp_path, chunk_pairs, row_group_size, compression):
        table = pa.Table.from_pylist([{**row, "unused": [1, 2]} for row in ROWS])
        options = {"row_group_size": row_group_size, "compression": compression}
        file = shards.write_parquet(tmp_path / "a.parquet", table, **options)
        assert pairs_of(read_all(file, chunk_pairs)) == expected_rows(file.path)

    @pytest.mark.parametrize("name", ["a.tfrecord", "a.tfrecord.gz"])
    def test_tfrecord(self, tmp_path, chunk_pairs, name):
        file = shards.write_tfrecord(tmp_path / name, ROWS)
        assert pairs_of(read_all(file, chunk_pairs)) == expected_rows(file.path)


@pytest.mark.parametrize("name", ["a.tfrecord", "a.tfrecord.gz"])
@pytest.mark.parametrize("chunk_pairs", [1, 4, 512])
@pytest.mark.parametrize("position", POSITIONS)
class TestDamagedRecords:
    def read(self, tmp_path, name, chunk_pairs, content):
        file = shards.write(tmp_path / name, gzip.compress(content) if name.endswith("gz") else content)
        return file.path, read_all(file, chunk_pairs)

    @pytest.mark.parametrize(
        ("reason", "damage"),
        [
            ("damaged_header", lambda frame: b"\xff" + frame[1:]),
            ("damaged_header", lambda frame: b"\xff" * len(frame)),
            ("damaged_data", lambda frame: frame[:20] + b"\xff" + frame[21:]),
            ("damaged_data", lambda frame: frame[:-1] + bytes([frame[-1] ^ 1])),
            ("not_an_example", lambda frame: shards.frame(b"\xff not protobuf")),
            ("missing_field", lambda frame: shards.frame(b"")),
            ("missing_field", lambda frame: shards.frame(shards.example({"generated": b"g"}))),
            ("wrong_type", lambda frame: shards.frame(shards.example({"generated": 1, "target": b"t"}))),
            ("wrong_type", lambda frame: shards.frame(shards.example({"generated": [b"a", b"b"], "target": b"t"}))),
            ("wrong_type", lambda frame: shards.frame(shards.example({**ROWS[0], "id": ["a", "b"]}))),
        ],
    )
    def test_cost_one_failure(self, tmp_path, name, chunk_pairs, position, reason, damage):
        hit = POSITIONS[position]
        content = frames()
        offset = sum(map(len, content[:hit]))
        content[hit] = damage(content[hit])
        path, encoded = self.read(tmp_path, name, chunk_pairs, b"".join(content))
        assert pairs_of(encoded) == expected_rows(path, [i for i in range(COUNT) if i != hit])
        (failure,) = failures_of(encoded)
        assert (failure.reason, failure.stage, failure.scope) == (reason, "read", "pair")
        assert failure.source == f"{path}#{hit}"
        assert failure.id in (f"{name}#{hit}", "x")
        assert path in failure.message
        assert f"offset {offset}" in failure.message
        assert bool(failure.sha256) is bool(failure.bytes) is (reason in ("damaged_data", "not_an_example"))

    def test_a_truncated_tail_costs_one_failure(self, tmp_path, name, chunk_pairs, position):
        whole = frames()[: POSITIONS[position] + 1]
        path, encoded = self.read(tmp_path, name, chunk_pairs, b"".join(whole)[:-3])
        assert pairs_of(encoded) == expected_rows(path, range(len(whole) - 1))
        assert [failure.reason for failure in failures_of(encoded)] == ["truncated_record"]

    def test_a_broken_gzip_stream_costs_one_failure(self, tmp_path, name, chunk_pairs, position):
        whole = frames()[: POSITIONS[position] + 1]
        content = gzip.compress(b"".join(whole))[:-8]
        file = shards.write(tmp_path / name, content)
        encoded = read_all(file, chunk_pairs)
        assert pairs_of(encoded) == expected_rows(file.path, range(len(whole)))
        (failure,) = failures_of(encoded)
        assert failure.reason == "damaged_stream"
        assert failure.source == f"{file.path}#{len(whole)}"


class TestTFRecordFields:
    def read_one(self, tmp_path, features, fields=Fields(), keep=()):  # noqa: B008  (frozen)
        return read_all(shards.write_tfrecord(tmp_path / "a.tfrecord", [features]), 512, fields, keep)

    @pytest.mark.parametrize(
        ("features", "expected"),
        [
            ({}, "a.tfrecord#0"),
            ({"id": None}, "a.tfrecord#0"),
            ({"id": "é"}, "é"),
            ({"id": b"\xff"}, "\\xff"),
            ({"id": 7}, "7"),
        ],
    )
    def test_ids(self, tmp_path, features, expected):
        (row,) = pairs_of(self.read_one(tmp_path, {"generated": b"g", "target": b"t", **features}))
        assert row["id"] == expected

    def test_an_image_without_a_value_is_null(self, tmp_path):
        (row,) = pairs_of(self.read_one(tmp_path, {"generated": None, "target": b""}))
        assert (row["generated"], row["target"]) == (None, b"")

    def test_kept_fields(self, tmp_path):
        keep = (
            pa.field("model", pa.string()),
            pa.field("score", pa.float32()),
            pa.field("label", pa.float64()),
            pa.field("camera", pa.string()),
        )
        features = {"generated": b"g", "target": b"t", "model": b"m\xff", "score": 0.5, "label": 3}
        fields = Fields(keep=tuple(field.name for field in keep))
        (row,) = pairs_of(self.read_one(tmp_path, features, fields, keep))
        assert [row[field.name] for field in keep] == ["m\\xff", 0.5, 3.0, None]

    @pytest.mark.parametrize("label", ["text", 0.5, [1, 2], 2**40])
    def test_a_kept_value_that_does_not_fit_is_null_with_a_note(self, tmp_path, label):
        rows = [{"generated": b"g", "target": b"t", "label": value} for value in (1, label)]
        file = shards.write_tfrecord(tmp_path / "a.tfrecord", rows)
        (chunk,) = read_series(*list_chunks(file, "auto", FIELDS), FIELDS, (pa.field("label", pa.int32()),))
        assert not chunk.failures
        assert chunk.pairs["label"].to_pylist() == [1, None]
        assert chunk.pairs["notes"].to_pylist() == [[], ["not_kept:label"]]

    def test_a_failure_has_the_id_of_its_record(self, tmp_path):
        (failure,) = failures_of(self.read_one(tmp_path, {"id": "x", "generated": b"g"}))
        assert failure.id == "x"
        assert "fields found: generated, id" in failure.message


class TestFileFailures:
    def test_an_unlisted_file(self, tmp_path):
        file = shards.write(tmp_path / "a.parquet", b"not parquet at all")
        (encoded,) = read_all(file)
        (failure,) = encoded.failures
        assert (failure.scope, failure.stage, failure.reason) == ("file", "list", "unreadable_file")
        assert failure.id == failure.source == file.path
        assert "\n" not in failure.message

    def test_an_empty_file_is_an_empty_chunk(self, tmp_path):
        (encoded,) = read_all(shards.write(tmp_path / "a.tfrecord", b""))
        assert not encoded.failures
        assert len(encoded.pairs) == 0

    @pytest.mark.parametrize("name", ["a.parquet", "a.tfrecord", "a.tfrecord.gz"])
    def test_a_file_that_vanishes(self, tmp_path, name):
        file = make(tmp_path / name)
        series = list(list_chunks(file, "auto", FIELDS, 4))
        os.remove(file.path)
        encoded = [chunk for one in series for chunk in read_series(one, FIELDS, KEEP)]
        assert [chunk.chunk for chunk in encoded] == list(chain(*series))
        assert len(encoded) == 3
        assert all(len(chunk.pairs) == 0 for chunk in encoded)
        for failure, records in zip(failures_of(encoded), ("0 to 3", "4 to 7", "8 to 10"), strict=True):
            assert (failure.scope, failure.stage, failure.reason) == ("file", "read", "unavailable")
            assert f"records {records}: FileNotFoundError" in failure.message

    @pytest.mark.parametrize("name", ["a.tfrecord", "a.tfrecord.gz"])
    @pytest.mark.parametrize("change", ["shorter", "other records"])
    def test_a_tfrecord_that_changes_unseen(self, tmp_path, name, change):
        """Where the file system does not tell that it has."""
        file = make(tmp_path / name)
        series = [[replace(chunk, version="") for chunk in one] for one in list_chunks(file, "auto", FIELDS, 4)]
        make(tmp_path / name, ROWS[:5] if change == "shorter" else [{**row, "target": b"t"} for row in ROWS])
        encoded = [chunk for one in series for chunk in read_series(one, FIELDS, KEEP)]
        kept = [chunk.chunk.start for chunk in encoded if not chunk.failures]
        assert kept == ([0] if change == "shorter" else [])
        assert all(failure.scope == "file" for failure in failures_of(encoded))

    @pytest.mark.parametrize("name", ["a.parquet", "a.tfrecord", "a.tfrecord.gz"])
    @pytest.mark.parametrize("change", ["replaced", "touched", "while it is read"])
    def test_a_file_that_changes(self, tmp_path, name, change):
        file = make(tmp_path / name)
        series = list(list_chunks(file, "auto", FIELDS, 4))
        reader = chain.from_iterable(read_series(one, FIELDS, KEEP) for one in series)
        encoded = [next(reader)] if change == "while it is read" else []
        if change == "touched":
            os.utime(file.path, (1, 1))
        else:
            shutil.copy(file.path, f"{file.path}.new")
            os.replace(f"{file.path}.new", file.path)
        assert not failures_of(encoded)
        failures = failures_of(reader)
        assert len(encoded) + len(failures) == 3
        assert {(f.scope, f.stage, f.reason) for f in failures} == {("file", "read", "changed")}
        assert all("changed since it was listed" in f.message for f in failures)

    @pytest.mark.parametrize("name", ["a.parquet", "a.tfrecord", "a.tfrecord.gz"])
    def test_a_file_that_changes_before_it_is_listed(self, tmp_path, name):
        file = make(tmp_path / name)
        os.utime(file.path, (1, 1))
        (failure,) = failures_of(read_all(file))
        assert (failure.scope, failure.stage, failure.reason) == ("file", "list", "changed")

    @pytest.mark.heavy
    @pytest.mark.parametrize("name", ["a.parquet", "a.tfrecord", "a.tfrecord.gz"])
    def test_a_store_that_fails(self, tmp_path, monkeypatch, name):
        """It is told from damage, which would be there again another time."""
        file = make(tmp_path / name)
        series = list(list_chunks(file, "auto", FIELDS, 4))
        real = FileSystems.open

        class Failing:
            def __init__(self, file):
                self.seek, self.tell, self.close, self.closed = file.seek, file.tell, file.close, False

            def read(self, size=-1):
                raise ServiceUnavailable("try again")

        monkeypatch.setattr(FileSystems, "open", lambda *args, **options: Failing(real(*args, **options)))
        failures = failures_of(chunk for one in series for chunk in read_series(one, FIELDS, KEEP))
        assert [f.reason for f in failures] == ["unavailable"] * 3
        assert all("try again" in f.message for f in failures)

    @pytest.mark.parametrize("checksums", [True, False])
    @pytest.mark.parametrize("group", [0, 2, 5])
    def test_a_corrupt_page_costs_its_chunk(self, tmp_path, checksums, group):
        path = tmp_path / "a.parquet"
        make(path, row_group_size=2, compression="zstd", write_page_checksum=checksums)
        metadata = pa.parquet.read_metadata(path).row_group(group).column(1)
        content = bytearray(path.read_bytes())
        end = metadata.dictionary_page_offset + metadata.total_compressed_size
        content[end - 30 : end] = b"\xff" * 30
        encoded = read_all(shards.write(path, content), 2)
        assert [chunk.chunk.place.row_group for chunk in encoded if chunk.failures] == [group]
        assert pairs_of(encoded) == expected_rows(path, [i for i in range(COUNT) if i // 2 != group])

    def test_a_chunk_is_tried_although_the_one_before_failed(self, tmp_path, monkeypatch):
        file = make(tmp_path / "a.tfrecord.gz")
        (series,) = list_chunks(file, "auto", FIELDS, 4)
        whole, real = list(read_series(series, FIELDS, KEEP)), FileSystems.open
        failed = []
        monkeypatch.setattr(FileSystems, "open", lambda path, **options: Broken(real(path, **options), failed))
        encoded = list(read_series(series, FIELDS, KEEP))
        assert [chunk.chunk.start for chunk in encoded if chunk.failures] == [0]
        assert encoded[1:] == whole[1:]


class Broken:
    """A file whose first read fails."""

    def __init__(self, file, failed):
        self.file, self.failed = file, failed

    def __getattr__(self, name):
        return getattr(self.file, name)

    def fileno(self):
        raise OSError("of a store")

    def read(self, size=-1):
        if not self.failed:
            self.failed.append(True)
            raise OSError("once")
        return self.file.read(size)


def make(path, rows=ROWS, **options):
    if path.suffix == ".parquet":
        return shards.write_parquet(path, pa.Table.from_pylist(rows), **options)
    return shards.write_tfrecord(path, rows)


@pytest.mark.parametrize("name", ["a.parquet", "a.tfrecord", "a.tfrecord.gz"])
def test_a_series_with_chunks_taken_out(tmp_path, name):
    rows = shards.rows(100)
    file = make(tmp_path / name, rows)
    for series in list_chunks(file, "auto", FIELDS, 3):
        rest = tuple(chunk for n, chunk in enumerate(series) if n in (1, 4, 5, 33)) or series
        for encoded in read_series(rest, FIELDS, KEEP):
            assert not encoded.failures
            assert encoded.pairs["label"].to_pylist() == list(range(encoded.chunk.start, encoded.chunk.stop))


@pytest.mark.parametrize("name", ["a.parquet", "a.tfrecord.gz"])
def test_reads_no_further_than_asked(tmp_path, name):
    # Random bytes do not compress: the file is far larger than any read buffer.
    image = np.random.default_rng(0).bytes(100_000)
    rows = [{"generated": image, "target": image} for _ in range(100)]
    options = {"use_dictionary": False, "write_batch_size": 1} if name == "a.parquet" else {}
    file = make(tmp_path / name, rows, **options)
    series = max(list_chunks(file, "auto", Fields(), 2), key=len)
    before = pa.total_allocated_bytes()
    reading = read_series(series, Fields())
    encoded = next(reading)
    assert len(encoded.pairs) == 2
    # A chunk is 400 kB and each column has a read buffer of 1 MiB; the whole file is 20 MB.
    assert pa.total_allocated_bytes() - before < 8 << 20
    del encoded
    os.truncate(file.path, 1000)
    assert next(reading).chunk == series[1]
