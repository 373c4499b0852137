"""Parquet: row ranges, needed columns, types."""

import io
from datetime import date, datetime, time
from decimal import Decimal
from itertools import chain
from uuid import UUID

import pyarrow as pa
import pytest
from support import shards

from transforms.reading import parquet
from transforms.reading.fields import check_schema
from transforms.reading.list_chunks import list_chunks
from transforms.reading.read_chunks import read_series
from transforms.schema import Fields, encoded_schema

FIELDS = Fields()
IMAGES = [b"first", None, b"", b"last"]
TYPES = [
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    pa.struct([("path", pa.string()), ("bytes", pa.large_binary())]),
]


def images(dtype: pa.DataType) -> pa.Array:
    if not pa.types.is_struct(dtype):
        return pa.array(IMAGES, dtype)
    # A struct whose bytes are null although there is a path, and a struct that is null as a whole.
    return pa.array(
        [{"bytes": IMAGES[0], "path": "a"}, {"bytes": None, "path": "/etc/hosts"}, {"bytes": b""}, None], dtype
    )


def read_all(file, fields=FIELDS, keep=(), chunk_pairs=512, **options):
    encoded = [
        chunk
        for series in list_chunks(file, "auto", fields, chunk_pairs, **options)
        for chunk in read_series(series, fields, keep)
    ]
    return pa.concat_tables([chunk.pairs for chunk in encoded]), list(chain(*(chunk.failures for chunk in encoded)))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_image_types(tmp_path, dtype):
    table = pa.table({"generated": images(dtype), "target": pa.array(IMAGES, pa.binary())})
    pairs, failures = read_all(shards.write_parquet(tmp_path / "a.parquet", table), chunk_pairs=3)
    struct = pa.types.is_struct(dtype)
    # The path beside null bytes leads out of the file's directory.
    expected = [b"first", b"", None] if struct else IMAGES
    assert [failure.reason for failure in failures] == ["outside_root"] * struct
    assert pairs.schema == encoded_schema()
    assert pairs["generated"].to_pylist() == expected
    assert pairs["target"].to_pylist() == [IMAGES[0], *IMAGES[2:]] if struct else IMAGES


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array(["x", None]), ["x", "a.parquet#1"]),
        (pa.array(["x", "é"], pa.large_string()), ["x", "é"]),
        (pa.array(["x", "x"]).dictionary_encode(), ["x", "x"]),
        (pa.array([7, -1], pa.int32()), ["7", "-1"]),
        (pa.array([b"x", b"\xff\x00"]), ["x", "\\xff\x00"]),
        (pa.array([["x"], ["y"]]), ["a.parquet#0", "a.parquet#1"]),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_ids(tmp_path, ids, expected):
    table = pa.table({"id": ids, "generated": [b"g", b"g"], "target": [b"t", b"t"]})
    pairs, _ = read_all(shards.write_parquet(tmp_path / "a.parquet", table))
    assert pairs["id"].to_pylist() == expected
    assert pairs["source"].to_pylist() == [f"{tmp_path}/a.parquet#{i}" for i in range(2)]


def test_text_that_is_not_utf8(tmp_path):
    raw = pa.array([b"ok", b"\xff\xfe"])
    text = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    table = pa.table({"id": text, "generated": [b"g"] * 2, "target": [b"t"] * 2, "model": text})
    file = shards.write_parquet(tmp_path / "a.parquet", table)
    pairs, _ = read_all(file, Fields(keep=("model",)), [pa.field("model", pa.string())])
    assert pairs["id"].to_pylist() == pairs["model"].to_pylist() == ["ok", "\\xff\\xfe"]


KEPT = {
    "text": pa.array(["a", None, "c"]),
    "category": pa.array(["a", None, "c"]).dictionary_encode(),
    "flag": pa.array([True, None, False]),
    "small": pa.array([1, None, 3], pa.uint8()),
    "real": pa.array([1.5, None, 3], pa.float64()),
    "when": pa.array([datetime(2024, 1, 2), None, datetime(2024, 1, 3)], pa.timestamp("us", "UTC")),
}


def test_kept_fields(tmp_path):
    table = pa.table({**KEPT, "generated": [b"g"] * 3, "target": [b"t"] * 3})
    fields = Fields(keep=tuple(reversed(KEPT)))
    keep = check_schema(table.schema, fields)
    pairs, failures = read_all(shards.write_parquet(tmp_path / "a.parquet", table), fields, keep, chunk_pairs=2)
    assert not failures
    assert pairs.schema == encoded_schema(keep)
    assert pairs["category"].type == pa.string()
    for name, column in KEPT.items():
        assert pairs[name].to_pylist() == column.to_pylist()


@pytest.mark.parametrize(
    ("here", "wanted", "expected"),
    [
        (pa.array([1, 2], pa.int64()), pa.int32(), [1, 2]),
        (pa.array([1, 2], pa.int32()), pa.string(), ["1", "2"]),
        (pa.array([1.0, 2.0]), pa.int64(), [1, 2]),
        (pa.array([None, None], pa.null()), pa.int64(), [None, None]),
        (pa.array([1, 2**40], pa.int64()), pa.int32(), [1, "lost"]),
        (pa.array(["x", "2"]), pa.int64(), ["lost", 2]),
        (pa.array([1.5, 2.0]), pa.int64(), ["lost", 2]),
        (pa.array([[1], [2, 3]]), pa.int64(), ["lost", "lost"]),
        (None, pa.string(), ["lost", "lost"]),
    ],
)
def test_a_kept_field_of_another_type_costs_no_pair(tmp_path, here, wanted, expected):
    table = pa.table({"generated": [b"g"] * 2, "target": [b"t"] * 2} | ({} if here is None else {"kept": here}))
    file = shards.write_parquet(tmp_path / "a.parquet", table)
    pairs, failures = read_all(file, Fields(keep=("kept",)), [pa.field("kept", wanted)])
    assert pairs.schema.field("kept").type == wanted
    assert not failures
    assert pairs["kept"].to_pylist() == [None if value == "lost" else value for value in expected]
    notes = pairs["notes"].to_pylist() if "notes" in pairs.schema.names else [[], []]
    assert notes == [["not_kept:kept"] if value == "lost" else [] for value in expected]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([UUID(int=1).bytes, None], pa.uuid()), "00000000-0000-0000-0000-000000000001"),
        (pa.array([bytes(range(250, 256)) + bytes(10), None], pa.binary(16)), "fafbfcfdfeff" + "00" * 10),
        (pa.array([Decimal("12345678901234567890.50"), None]), "12345678901234567890.50"),
        (pa.array([Decimal(2**127 - 1), None], pa.decimal256(39, 0)), str(2**127 - 1)),
        (pa.array([Decimal("1E+3"), None], pa.decimal128(10, 2)), "1000.00"),
        (pa.array([12345678.0, None]), "12345678"),
        (pa.array([1e20, None]), "1" + "0" * 20),
        (pa.array([0.0000001, None]), "0.0000001"),
        (pa.array([0.1, None], pa.float32()), "0.1"),
        (pa.array([100.0, None], pa.float16()), "100"),
        (pa.array([float("nan"), None]), "nan"),
        (pa.array([2**64 - 1, None], pa.uint64()), str(2**64 - 1)),
        (pa.array([date(2024, 1, 2), None]), "2024-01-02"),
        (pa.array([datetime(2024, 1, 2, 3, 4), None]), "2024-01-02T03:04:00.000000"),
        (pa.array([datetime(2024, 1, 2), None], pa.timestamp("ms", "Europe/Berlin")), "2024-01-02T00:00:00.000Z"),
        (pa.array([time(3, 4), None]), "03:04:00.000000"),
        (pa.array([True, None]), "true"),
        (pa.array([b"x\xff", None]), "x\\xff"),
        (pa.array(["x", None]).dictionary_encode(), "x"),
        (pa.array(["x", None], pa.large_string()), "x"),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
@pytest.mark.parametrize("name", ["id", "key"])
def test_ids_of_a_database(tmp_path, ids, expected, name):
    table = pa.table({"generated": [b"g"] * 2, "target": [b"t"] * 2, name: ids})
    fields = Fields(id=None if name == "id" else name)
    pairs, failures = read_all(shards.write_parquet(tmp_path / "a.parquet", table), fields)
    assert not failures
    assert pairs["id"].to_pylist() == [expected, "a.parquet#1"]


def test_one_field_may_play_several_parts(tmp_path):
    table = pa.table({"key": ["a", "b"], "image": [b"x", b"y"]})
    fields = Fields(("image",), "image", "key", ("key",))
    keep = check_schema(table.schema, fields)
    pairs, _ = read_all(shards.write_parquet(tmp_path / "a.parquet", table), fields, keep)
    assert pairs.select(["id", "generated", "target", "key"]).to_pylist() == [
        {"id": "a", "generated": b"x", "target": b"x", "key": "a"},
        {"id": "b", "generated": b"y", "target": b"y", "key": "b"},
    ]


def table_of(count: int) -> pa.Table:
    return pa.Table.from_pylist(shards.rows(count))


def listed(file, chunk_pairs=512, chunk_bytes=1 << 30, fields=FIELDS):
    return list(list_chunks(file, "parquet", fields, chunk_pairs, chunk_bytes))


@pytest.mark.parametrize("chunk_pairs", [1, 3, 7, 10, 100])
@pytest.mark.parametrize("row_group_size", [1, 4, 10, 23, 100])
def test_ranges_cover_the_file_and_stay_in_row_groups(tmp_path, chunk_pairs, row_group_size):
    file = shards.write_parquet(tmp_path / "a.parquet", table_of(23), row_group_size=row_group_size)
    chunks = [chunk for series in listed(file, chunk_pairs) for chunk in series]
    assert [chunk.start for chunk in chunks] == [0, *(chunk.stop for chunk in chunks[:-1])]
    assert chunks[-1].stop == 23
    for chunk in chunks:
        assert 0 < chunk.pairs <= chunk_pairs
        group, row = divmod(chunk.start, row_group_size)
        assert chunk.place == parquet.RowRange(group, row, row + chunk.pairs)


def test_bytes_limit_counts_only_needed_columns(tmp_path):
    ballast = pa.array([bytes([i]) * 100_000 for i in range(40)])
    images = pa.array([bytes([i]) * 10_000 for i in range(40)])
    table = pa.table({"generated": images, "target": images, "ballast": ballast})
    file = shards.write_parquet(tmp_path / "a.parquet", table, use_dictionary=False)
    sizes = [chunk.pairs for series in listed(file, chunk_bytes=201_500) for chunk in series]
    assert sizes == [10, 10, 10, 10]
    assert [chunk.pairs for series in listed(file, chunk_bytes=1) for chunk in series] == [1] * 40


def test_a_huge_row_group_comes_in_few_series(tmp_path):
    file = shards.write_parquet(tmp_path / "a.parquet", table_of(100))
    series = listed(file, chunk_pairs=1)
    assert len(series) <= parquet.MAX_SERIES_PER_ROW_GROUP
    assert sum(map(len, series)) == 100
    assert [len(one) for one in listed(file, chunk_pairs=10)] == [1] * 10


def test_reads_with_a_small_buffer_and_only_what_is_needed(tmp_path):
    class Watched(io.BytesIO):
        largest = total = 0

        def read(self, size=-1):
            data = super().read(size)
            self.largest = max(self.largest, len(data))
            self.total += len(data)
            return data

    big = pa.array([bytes([i]) * 300_000 for i in range(40)])
    table = pa.table({"generated": big, "target": [b"t"] * 40, "ballast": big})
    path = tmp_path / "a.parquet"
    # pyarrow's writer ends a page after this many rows at the earliest, however large they are.
    options = {"compression": "none", "use_dictionary": False, "write_batch_size": 1}
    file = shards.write_parquet(path, table, **options)
    (series,) = listed(file)
    opened = Watched(path.read_bytes())
    (encoded,) = parquet.read_rows(opened, series, FIELDS, ())
    assert len(encoded.pairs) == 40
    assert opened.largest <= 2 * parquet.READ_BUFFER_BYTES
    assert opened.total < 0.6 * file.size


def test_a_file_that_changed_since_it_was_listed(tmp_path):
    path = tmp_path / "a.parquet"
    old = listed(shards.write_parquet(path, table_of(20), row_group_size=10))
    for changed in (
        table_of(9),
        table_of(20).drop_columns(["target"]),
    ):
        shards.write_parquet(path, changed, row_group_size=20)
        encoded = [chunk for series in old for chunk in read_series(series, FIELDS)]
        lost = [chunk for chunk in encoded if chunk.failures]
        assert all("has changed" in chunk.failures[0].message for chunk in lost)
        assert encoded[-1] in lost
