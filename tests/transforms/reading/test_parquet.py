"""Parquet: row ranges, needed columns, types."""

import base64
import io
from datetime import date, datetime, time
from decimal import Decimal
from itertools import chain
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from support import shards
from support.pictures import encode as encode_image
from support.pictures import noise

from transforms.reading import parquet, parquet_cutting, parquet_file
from transforms.reading.fields import check_schema
from transforms.reading.list_chunks import check_fields, list_chunks
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
PICTURE = encode_image(noise(0, 8, 8))
FILES = [PICTURE, None]


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
    "column",
    [
        pa.array(FILES, pa.binary(len(PICTURE))),
        pa.array([{"bytes": file} for file in FILES], pa.struct([("bytes", pa.binary(len(PICTURE)))])),
        pa.array([file and list(file) for file in FILES], pa.list_(pa.uint8())),
        pa.array([file and np.frombuffer(file, np.int8) for file in FILES], pa.large_list(pa.int8())),
        pa.array([{"bytes": file and base64.b64encode(file).decode()} for file in FILES]),
    ],
    ids=lambda column: str(column.type),
)
def test_the_bytes_of_a_file_in_other_types(tmp_path, column):
    file = shards.write_parquet(tmp_path / "a.parquet", pa.table({"generated": column, "target": [b"t"] * 2}))
    assert check_fields(file.path, "parquet", FIELDS) == ()
    pairs, failures = read_all(file)
    assert pairs["generated"].to_pylist() == FILES
    assert not failures


def test_a_shard_of_nulls_costs_a_row_per_pair(tmp_path):
    file = shards.write_parquet(tmp_path / "a.parquet", pa.table({"generated": pa.nulls(2), "target": [b"t"] * 2}))
    pairs, failures = read_all(file)
    assert pairs["generated"].to_pylist() == [None, None]
    assert not failures


def test_a_list_of_numbers_that_are_no_file_needs_a_shape(tmp_path):
    table = pa.table({"generated": pa.array([[1, 2, 3]], pa.list_(pa.uint8())), "target": [b"t"]})
    pairs, (failure,) = read_all(shards.write_parquet(tmp_path / "a.parquet", table))
    assert (len(pairs), failure.reason) == (0, "wrong_shape")
    assert "--array_shape" in failure.message


ONE_EACH = [[IMAGES[0]], [], None, [IMAGES[3]]]
HUGGING_FACE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.mark.parametrize(
    "column",
    [
        pa.array(ONE_EACH, pa.list_(pa.binary())),
        pa.array(ONE_EACH, pa.large_list(pa.large_binary())),
        pa.array([IMAGES[:1], [None], [None], IMAGES[3:]], pa.list_(pa.binary(), 1)),
        pa.array([v and [{"bytes": x} for x in v] for v in ONE_EACH], pa.list_(HUGGING_FACE)),
    ],
    ids=lambda column: str(column.type),
)
@pytest.mark.parametrize("use_dictionary", [True, False])
def test_a_list_of_one_image(tmp_path, column, use_dictionary):
    table = pa.table({"generated": column, "target": [b"t"] * 4})
    file = shards.write_parquet(tmp_path / "a.parquet", table, use_dictionary=use_dictionary)
    pairs, failures = read_all(file, chunk_pairs=3)
    assert pairs["generated"].to_pylist() == [b"first", None, None, b"last"]
    assert not failures


def test_a_list_of_several_images_is_one_failure(tmp_path):
    target = pa.array([[b"t"], [b"t", b"u"], [b"v"]])
    table = pa.table({"generated": [b"g"] * 3, "target": target, "id": ["0", "1", "2"]})
    pairs, (failure,) = read_all(shards.write_parquet(tmp_path / "a.parquet", table))
    assert pairs.select(["id", "target"]).to_pylist() == [{"id": "0", "target": b"t"}, {"id": "2", "target": b"v"}]
    assert (failure.id, failure.reason, failure.stage) == ("1", "wrong_type", "read")
    assert "'target' holds several values" in failure.message


def test_fields_in_structs(tmp_path):
    pair = {"a": b"g", "b": {"bytes": b"t", "path": None}, "name": "x", "other": 1}
    dtype = pa.struct([("a", pa.binary()), ("b", HUGGING_FACE), ("name", pa.string()), ("other", pa.int64())])
    table = pa.table({"pair": pa.array([pair, None], dtype), "deep": [{"er": {"cam": 7}}, None]})
    file = shards.write_parquet(tmp_path / "a.parquet", table)
    fields = Fields(("pair.a",), "pair.b", "pair.name", ("deep.er.cam",))
    keep = check_schema(parquet.read_schema(io.BytesIO((tmp_path / "a.parquet").read_bytes()), fields), fields)
    pairs, failures = read_all(file, fields, keep)
    assert pairs.drop_columns(["source"]).to_pylist() == [
        {"id": "x", "generated": b"g", "target": b"t", "deep.er.cam": 7},
        {"id": "a.parquet#1", "generated": None, "target": None, "deep.er.cam": None},
    ]
    assert not failures


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes])
def test_images_as_base64(tmp_path, encode):
    image = encode_image(noise(0, 8, 8))
    text = encode(image).decode()
    texts = [text, text.rstrip("="), f"data:image/png;base64,{text}", "no/such.png"]
    pairs, (failure,) = read_all(
        shards.write_parquet(tmp_path / "a.parquet", pa.table({"generated": texts, "target": [b"t"] * 4}))
    )
    assert pairs["generated"].to_pylist() == [image] * 3
    assert failure.reason == "unreadable_image"
    assert "path" in failure.message


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
    "measured": pa.ExtensionArray.from_storage(
        pa.opaque(pa.float64(), "length", "test"), pa.array([1.5, None, 3], pa.float64())
    ),
}
AS_TEXT = {
    "price": (pa.array([Decimal("1.50"), None]), "1.50"),
    "exact": (pa.array([Decimal(2**127 - 1), None], pa.decimal256(39, 0)), str(2**127 - 1)),
    "clock": (pa.array([time(3, 4), None]), "03:04:00.000000"),
    "uuid": (pa.array([UUID(int=1).bytes, None], pa.uuid()), "00000000-0000-0000-0000-000000000001"),
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
        stored = column.storage if isinstance(column, pa.ExtensionArray) else column
        assert pairs[name].to_pylist() == stored.to_pylist()


@pytest.mark.parametrize("name", AS_TEXT)
def test_kept_fields_that_become_text(tmp_path, name):
    column, expected = AS_TEXT[name]
    table = pa.table({name: column, "generated": [b"g"] * 2, "target": [b"t"] * 2})
    fields = Fields(keep=(name,))
    keep = check_schema(table.schema, fields)
    pairs, failures = read_all(shards.write_parquet(tmp_path / "a.parquet", table), fields, keep)
    assert not failures
    assert "notes" not in pairs.schema.names
    assert pairs[name].to_pylist() == [expected, None]


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
        assert chunk.place == parquet_file.RowRange(group, row, row + chunk.pairs)


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
    assert len(series) <= parquet_cutting.MAX_SERIES_PER_ROW_GROUP
    assert sum(map(len, series)) == 100
    assert [len(one) for one in listed(file, chunk_pairs=10)] == [1] * 10


LARGE, SMALL = bytes(100_000), b"s" * 100
SKEWED = {
    "large first": [LARGE] * 10 + [SMALL] * 300,
    "large last": [SMALL] * 300 + [LARGE] * 10,
    "large in the middle": [SMALL] * 99 + [LARGE] * 11 + [SMALL] * 200,
    "nulls": [None] * 200 + [LARGE] * 10,
}


@pytest.mark.parametrize("side", ["generated", "target"])
@pytest.mark.parametrize("make", [pa.array, lambda rows: pa.array([row and [row] for row in rows])], ids=["", "list"])
@pytest.mark.parametrize("name", SKEWED)
def test_large_images_that_lie_together(tmp_path, name, make, side):
    other = {"generated": "target", "target": "generated"}[side]
    rows = [row and bytes([number % 256]) + row for number, row in enumerate(SKEWED[name])]
    table = pa.table({side: make(rows), other: [b"x"] * len(rows)})
    file = shards.write_parquet(tmp_path / "a.parquet", table, use_dictionary=False, compression="none")
    series = listed(file, 256, 250_000)
    chunks = [chunk for one in series for chunk in one]
    assert [chunk.start for chunk in chunks] == [0, *(chunk.stop for chunk in chunks[:-1])]
    assert chunks[-1].stop == len(rows)
    assert max(sum(len(row or b"") + 1 for row in rows[chunk.start : chunk.stop]) for chunk in chunks) <= 250_000
    assert len(chunks) <= 8
    assert len(series) <= parquet_cutting.MAX_SERIES_PER_ROW_GROUP
    read = [encoded for one in series for encoded in read_series(one, FIELDS)]
    assert [row for encoded in read for row in encoded.pairs[side].to_pylist()] == rows


@pytest.mark.parametrize("use_dictionary", [True, False])
def test_large_arrays_that_lie_together(tmp_path, use_dictionary):
    rows = [[[number] * 100] * 100 for number in range(10)] + [[[1]]] * 50
    table = pa.table({"generated": pa.array(rows, pa.list_(pa.list_(pa.float32()))), "target": [b"x"] * 60})
    file = shards.write_parquet(tmp_path / "a.parquet", table, use_dictionary=use_dictionary, compression="none")
    read = [encoded for one in listed(file, 256, 100_000) for encoded in read_series(one, FIELDS)]
    # A dictionary of so few numbers takes little.
    assert [len(encoded.pairs) for encoded in read] == ([60] if use_dictionary else [2] * 4 + [52])


def test_damage_in_a_row_group_that_has_to_be_measured(tmp_path):
    images = [bytes([number]) * 20_000 for number in range(60)]
    table = pa.table({"generated": images, "target": [b"t"] * 60})
    options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True, "write_batch_size": 1}
    path = tmp_path / "a.parquet"
    shards.write_parquet(path, table, row_group_size=40, data_page_size=20_000, **options)
    content = path.read_bytes()
    path.write_bytes(content.replace(images[30], images[31]))
    series = listed(shards.input_file(path), chunk_bytes=100_000)
    read = [encoded for one in series for encoded in read_series(one, FIELDS)]
    assert [encoded.chunk.start for encoded in read] == [0, *(encoded.chunk.stop for encoded in read[:-1])]
    assert read[-1].chunk.stop == 60
    lost = [encoded.chunk for encoded in read if encoded.failures]
    # The rows behind damage in a row group cannot be reached.
    assert all(25 <= chunk.start < 40 for chunk in lost)
    assert sum(len(encoded.pairs) for encoded in read) == 60 - sum(chunk.pairs for chunk in lost)


def test_small_row_groups_are_read_together(tmp_path):
    rows = table_of(100)
    file = shards.write_parquet(tmp_path / "a.parquet", rows, row_group_size=3)
    series = listed(file, chunk_pairs=10)
    assert [[chunk.pairs for chunk in one] for one in series] == [[3, 3, 3]] * 10 + [[3, 3, 3, 1]]


def test_the_footer_is_parsed_once(tmp_path, monkeypatch):
    file = shards.write_parquet(tmp_path / "a.parquet", table_of(50), row_group_size=2)
    series = listed(file, chunk_pairs=4)
    content = (tmp_path / "a.parquet").read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    reads = []

    class Watched(io.BytesIO):
        def read(self, size=-1):
            reads.append(self.tell())
            return super().read(size)

    for one in series:
        list(parquet.read_rows(Watched(content), one, FIELDS, ()))
    assert sum(at >= footer for at in reads) <= 2


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
    assert opened.largest <= 2 * parquet_file.READ_BUFFER_BYTES
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
