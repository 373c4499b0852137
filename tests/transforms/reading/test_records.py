"""Shapes in which records hold images: base64, lists of one, nested fields, dictionaries, Hive partitions."""

import io
import json
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support import shards
from support.pictures import encode, noise

from transforms.reading.fields import nested_value, partitions
from transforms.reading.list_chunks import check_fields, detect_format, list_chunks
from transforms.reading.read_chunks import read_series
from transforms.schema import EncodedChunk, Fields

FIELDS = Fields()
IMAGES = [encode(noise(seed, 8, 8)) for seed in range(3)]
TEXTS = [b64encode(image).decode() for image in IMAGES]


def write(path: Path, records: Sequence[dict[str, Any]], types: dict[str, pa.DataType] | None = None) -> str:
    if path.suffix == ".jsonl":
        return shards.write(path, "".join(json.dumps(row) + "\n" for row in records).encode()).path
    if path.suffix == ".csv":
        lines = [",".join(row) + "\n" for row in ([*records[0]], *(row.values() for row in records))]
        return shards.write(path, "".join(lines).encode()).path
    if path.suffix == ".tfrecord":
        return shards.write_tfrecord(path, records).path
    table = pa.Table.from_pylist(list(records))
    for name, dtype in (types or {}).items():
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(dtype))
    return shards.write_parquet(path, table, row_group_size=2).path


def read(path: str, fields: Fields = FIELDS) -> list[EncodedChunk]:
    kept = check_fields(path, detect_format(path), fields)
    assert kept is not None
    series = list(list_chunks(shards.input_file(Path(path)), "auto", fields, 2))
    encoded = [chunk for one in series for chunk in read_series(one, fields, kept)]
    assert all(len(one.pairs) + len(one.failures) == one.chunk.pairs for one in encoded)
    return encoded


def images(encoded: Sequence[EncodedChunk]) -> list[tuple[bytes, bytes]]:
    rows = [row for one in encoded for row in one.pairs.to_pylist()]
    return [(row["generated"], row["target"]) for row in rows]


def reasons(encoded: Sequence[EncodedChunk]) -> list[str]:
    return [failure.reason for one in encoded for failure in one.failures]


SAME = [(image, image) for image in IMAGES]


class TestBase64:
    @pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "a.tfrecord"])
    def test_is_recognised(self, tmp_path, name):
        path = write(tmp_path / name, [{"generated": text, "target": text} for text in TEXTS])
        assert images(read(path)) == SAME

    def test_in_binary_columns_and_structs(self, tmp_path):
        rows = [{"generated": t.encode(), "target": {"bytes": t.encode(), "path": "x"}} for t in TEXTS]
        assert images(read(write(tmp_path / "a.parquet", rows))) == SAME

    @pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.tfrecord"])
    def test_data_addresses(self, tmp_path, name):
        path = write(tmp_path / name, [{"generated": f"data:image/png;base64,{t}", "target": t} for t in TEXTS])
        assert images(read(path)) == SAME

    def test_of_the_dictionary_of_a_column_stays_there_once(self, tmp_path):
        rows = [{"generated": text, "target": TEXTS[0]} for text in TEXTS[:2]]
        (encoded,) = read(write(tmp_path / "a.parquet", rows))
        target = encoded.pairs["target"].combine_chunks()
        assert target.dictionary.to_pylist() == IMAGES[:1]

    @pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.tfrecord"])
    @pytest.mark.parametrize("text", ["data:no base64!", "data:image/png;base64,abcde", "data:image/png;base64,é"])
    def test_an_address_that_holds_none_costs_its_record(self, tmp_path, name, text):
        path = write(tmp_path / name, [{"generated": t, "target": TEXTS[0]} for t in (TEXTS[0], text)])
        encoded = read(path)
        assert images(encoded) == SAME[:1]
        assert reasons(encoded) == ["not_base64"]

    @pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
    @pytest.mark.parametrize("text", ["no base64!", "a" * 64, TEXTS[0][4:]])
    def test_other_text_is_a_path(self, tmp_path, name, text):
        encoded = read(write(tmp_path / name, [{"generated": text, "target": TEXTS[0]}]))
        assert reasons(encoded) == ["unreadable_image"]


class TestLists:
    @pytest.mark.parametrize(
        "dtype", [pa.list_(pa.binary()), pa.large_list(pa.binary()), pa.list_(pa.binary(), 1)], ids=str
    )
    def test_lists_of_one(self, tmp_path, dtype):
        path = write(tmp_path / "a.parquet", [{"generated": [i], "target": i} for i in IMAGES], {"generated": dtype})
        assert images(read(path)) == SAME

    def test_structs_in_lists(self, tmp_path):
        rows = [{"generated": [{"bytes": image, "path": "x"}], "target": image} for image in IMAGES]
        assert images(read(write(tmp_path / "a.parquet", rows))) == SAME

    @pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
    def test_several_are_a_failure_and_an_empty_list_is_a_null(self, tmp_path, name):
        rows = [{"generated": [t], "target": t} for t in TEXTS] + [{"generated": [], "target": TEXTS[0]}]
        rows[1]["generated"] *= 2
        encoded = read(write(tmp_path / name, rows))
        assert images(encoded) == [SAME[0], SAME[2], (None, IMAGES[0])]
        assert reasons(encoded) == ["wrong_type"]


class TestNested:
    @pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
    def test_fields_in_fields(self, tmp_path, name):
        rows = [
            {"key": {"id": f"p{n}", "model": "m"}, "pair": {"generated": t, "target": t, "other": 1}}
            for n, t in enumerate(TEXTS)
        ]
        fields = Fields(("pair.generated",), "pair.target", "key.id", ("key.model",))
        encoded = read(write(tmp_path / name, rows), fields)
        assert images(encoded) == SAME
        rows = [row for one in encoded for row in one.pairs.to_pylist()]
        assert [(row["id"], row["key.model"]) for row in rows] == [("p0", "m"), ("p1", "m"), ("p2", "m")]

    def test_hugging_face_structs_in_a_struct(self, tmp_path):
        image = {"bytes": IMAGES[0], "path": None}
        path = write(tmp_path / "a.parquet", [{"pair": {"a": image, "b": image}}])
        assert images(read(path, Fields(("pair.a",), "pair.b"))) == SAME[:1]

    def test_a_name_with_a_dot_comes_first(self):
        assert nested_value({"a.b": 1, "a": {"b": 2}}, "a.b") == (1, True)
        assert nested_value({"a": {"b": 2}}, "a.b") == (2, True)
        assert nested_value({"a": {"b": 2}}, "a.c") == (None, False)
        assert nested_value({"a": 1}, "b") == (None, False)


def test_dictionaries(tmp_path):
    rows = [{"generated": IMAGES[n % 2], "target": IMAGES[n % 2], "model": f"m{n % 2}"} for n in range(6)]
    types = {name: pa.dictionary(pa.int8(), pa.binary()) for name in ("generated", "target")}
    path = write(tmp_path / "a.parquet", rows, types | {"model": pa.dictionary(pa.int32(), pa.string())})
    encoded = read(path, Fields(keep=("model",)))
    assert images(encoded) == SAME[:2] * 3
    assert [row["model"] for one in encoded for row in one.pairs.to_pylist()] == ["m0", "m1"] * 3


class TestPartitions:
    @pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.tfrecord"])
    def test_values_are_kept(self, tmp_path, name):
        rows = [{"generated": t, "target": t, "model": "m"} for t in TEXTS]
        path = write(tmp_path / "day=2024-01-02" / "city=New%20York" / name, rows)
        encoded = read(path, Fields(keep=("day", "model", "city")))
        found = [row for one in encoded for row in one.pairs.to_pylist()]
        assert {(row["day"], row["city"], row["model"]) for row in found} == {("2024-01-02", "New York", "m")}
        assert all("notes" not in row for row in found)

    def test_a_field_of_the_file_comes_first(self, tmp_path):
        path = write(tmp_path / "day=1" / "a.parquet", [{"generated": IMAGES[0], "target": IMAGES[0], "day": 7}])
        (encoded,) = read(path, Fields(keep=("day",)))
        assert encoded.pairs["day"].to_pylist() == [7]

    def test_of_a_path(self):
        assert partitions("gs://b/x/day=1/m=a=b/c=__HIVE_DEFAULT_PARTITION__/d=1.parquet") == {
            "day": "1",
            "m": "a=b",
            "c": None,
        }


class TestArrays:
    """Arrays in records come out as .npy."""

    ARRAY = np.arange(4 * 3 * 3, dtype=np.uint8).reshape(4, 3, 3)

    def arrays(self, path: str, **fields: str) -> list[np.ndarray]:
        encoded = read(path, Fields(**fields))
        assert reasons(encoded) == []
        return [np.load(io.BytesIO(image)) for pair in images(encoded) for image in pair]

    @pytest.mark.parametrize("name", ["nested", "fixed", "flat"])
    def test_in_parquet(self, tmp_path, name):
        nested = pa.list_(pa.list_(pa.list_(pa.uint8())))
        dtype = {"nested": nested, "fixed": pa.list_(pa.float32(), 36), "flat": pa.large_list(pa.uint8())}[name]
        values = self.ARRAY.tolist() if name == "nested" else self.ARRAY.ravel().tolist()
        table = pa.table({side: pa.array([values, values, values], dtype) for side in ("generated", "target")})
        path = shards.write_parquet(tmp_path / "a.parquet", table).path
        found = self.arrays(path, **({} if name == "nested" else {"array_shape": "4,3,3"}))
        assert len(found) == 6
        assert all(np.array_equal(array, self.ARRAY) for array in found)
        assert found[0].dtype == (np.float32 if name == "fixed" else np.uint8)

    @pytest.mark.parametrize("name", ["a.parquet", "a.tfrecord"])
    def test_as_bytes(self, tmp_path, name):
        data = self.ARRAY.astype("<f4").tobytes()
        path = write(tmp_path / name, [{"generated": data, "target": data}])
        found = self.arrays(path, array_type="float32", array_shape="4,3,3")
        assert all(np.array_equal(array, self.ARRAY) for array in found)

    @pytest.mark.parametrize("kind", [float, int])
    def test_as_numbers_in_tfrecord(self, tmp_path, kind):
        values = [kind(value) for value in self.ARRAY.ravel()]
        path = write(tmp_path / "a.tfrecord", [{"generated": values, "target": values}])
        assert all(np.array_equal(a, self.ARRAY) for a in self.arrays(path, array_shape="4,3,3"))

    def test_in_json(self, tmp_path):
        path = write(tmp_path / "a.jsonl", [{"generated": self.ARRAY.tolist(), "target": self.ARRAY.tolist()}])
        assert all(np.array_equal(array, self.ARRAY) for array in self.arrays(path))

    @pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
    def test_wrong_shapes_cost_their_records(self, tmp_path, name):
        good, ragged = [[1, 2], [3, 4]], [[1, 2], [3]]
        path = write(tmp_path / name, [{"generated": value, "target": good} for value in (good, ragged, good)])
        encoded = read(path)
        assert len(images(encoded)) == 2
        assert reasons(encoded) == ["wrong_shape"]

    def test_a_shape_must_fit(self, tmp_path):
        table = pa.table({side: pa.array([[1] * 36], pa.list_(pa.uint8(), 36)) for side in ("generated", "target")})
        path = shards.write_parquet(tmp_path / "a.parquet", table).path
        assert reasons(read(path, Fields(array_shape="5,3,3"))) == ["wrong_shape"]
        with pytest.raises(ValueError, match="--array_shape"):
            read(path)
