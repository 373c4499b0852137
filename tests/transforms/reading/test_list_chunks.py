"""The format of input files, their fields, and their chunks."""

import gzip
import os
import re
import zlib

import pyarrow as pa
import pytest
from support import shards

from transforms.reading.input_files import InputFile
from transforms.reading.list_chunks import check_fields, detect_format, list_chunks
from transforms.schema import Fields
from transforms.worker import sandbox_pool

FIELDS = Fields()
ROWS = shards.rows(10)


def make(path, rows=ROWS):
    if path.suffix == ".parquet":
        return shards.write_parquet(path, pa.Table.from_pylist(rows))
    return shards.write_tfrecord(path, rows)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.parquet", b"", "parquet"),
        ("x.PQ", b"", "parquet"),
        ("x.tfrecord", b"", "tfrecord"),
        ("x.tfrecords", b"PAR1", "tfrecord"),
        ("x.tfrec.gz", b"", "tfrecord"),
        ("x.tfr", b"", "tfrecord"),
        ("x.tfrecord-00000-of-00010", b"", "tfrecord"),
        ("x.tfrecord-00000-of-00010.gz", b"", "tfrecord"),
        ("x-00000-of-00010.tfrecord", b"", "tfrecord"),
        ("x-00000-of-00010", shards.frame(b"x"), "tfrecord"),
        ("x.bin", b"PAR1 and so on", "parquet"),
        ("x", b"", None),
        ("x.csv", b"", "csv"),
        ("x.TSV", b"", "csv"),
        ("x.jsonl", b"", "jsonl"),
        ("x.txt", b"id,generated,target\n", None),
        ("x.gz", b"\x1f\x8b\x08 broken", None),
    ],
)
def test_detect_format(tmp_path, name, content, expected):
    path = shards.write(tmp_path / name, content).path
    if expected is None:
        with pytest.raises(ValueError, match=re.escape(name)):
            detect_format(path)
    else:
        assert detect_format(path) == expected
    assert detect_format(path, "tfrecord") == "tfrecord"


@pytest.mark.parametrize("name", ["a.parquet", "a.tfrecord", "a.tfrecord.gz"])
class TestCheckFields:
    rows = tuple({**row, "score": 0.5, "model": "m", "values": [1, 2]} for row in ROWS[:3])

    def check(self, tmp_path, name, **fields):
        return check_fields(make(tmp_path / name, self.rows).path, detect_format(name), Fields(**fields))

    def test_good(self, tmp_path, name):
        (label, model, score) = self.check(tmp_path, name, id="label", keep=("label", "model", "score"))
        assert (label, model) == (pa.field("label", pa.int64()), pa.field("model", pa.string()))
        assert score.type == (pa.float64() if name == "a.parquet" else pa.float32())

    @pytest.mark.parametrize(
        ("fields", "problem"),
        [
            ({"generated": ("fake",)}, "no field 'fake' (--generated_field)"),
            ({"target": "real"}, "no field 'real' (--target_field)"),
            ({"id": "key"}, "no field 'key' (--id_field)"),
            ({"keep": ("camera",)}, "no field 'camera' (--keep_fields)"),
            ({"target": "label"}, "field 'label' (--target_field) is int64, but binary"),
            ({"target": "values"}, "field 'values' (--target_field) is list<"),
            ({"id": "values"}, "field 'values' (--id_field) is list<"),
            ({"keep": ("values",)}, "field 'values' (--keep_fields) is list<"),
            ({"keep": ("model", "model")}, "--keep_fields=model: given twice"),
            ({"keep": ("source",)}, "--keep_fields=source: the name is taken"),
            ({"generated": ("a",), "target": "b"}, "no field 'a' (--generated_field); no field 'b' (--target_field)"),
        ],
    )
    def test_bad(self, tmp_path, name, fields, problem):
        with pytest.raises(ValueError, match=re.escape(problem)) as caught:
            self.check(tmp_path, name, **fields)
        message = str(caught.value)
        assert str(tmp_path) in message
        assert "\n" not in message
        found = message.partition("Fields found: ")[2]
        assert {"generated: binary", "label: int64"} <= set(found.split(", "))

    def test_a_damaged_file_cannot_tell(self, tmp_path, name):
        path = shards.write(tmp_path / name, b"damaged, whatever it was").path
        assert check_fields(path, detect_format(name), FIELDS) is None
        assert check_fields(f"{path}.gone", detect_format(name), FIELDS) is None


def test_check_fields_looks_past_bad_records(tmp_path):
    content = b"\xff" * 30 + shards.frame(b"\xff") + shards.frame(shards.example({"generated": b"g"}))
    path = shards.write(tmp_path / "a.tfrecord", content + shards.frame(shards.example({"target": b"t", "n": 1}))).path
    assert check_fields(path, "tfrecord", Fields(keep=("n",))) == (pa.field("n", pa.int64()),)


def test_check_fields_refuses_two_fields_of_one_name(tmp_path):
    table = pa.Table.from_arrays([pa.array([b"x"])] * 3, names=["generated", "target", "target"])
    path = shards.write_parquet(tmp_path / "a.parquet", table).path
    with pytest.raises(ValueError, match="2 fields are called 'target'"):
        check_fields(path, "parquet", FIELDS)


class TestListChunks:
    @pytest.mark.parametrize("chunk_pairs", [1, 3, 10, 11])
    def test_plain_tfrecord(self, tmp_path, chunk_pairs):
        series = list(list_chunks(make(tmp_path / "a.tfrecord"), "auto", FIELDS, chunk_pairs))
        assert all(len(one) == 1 for one in series)
        chunks = [one[0] for one in series]
        assert [chunk.start for chunk in chunks] == list(range(0, 10, chunk_pairs))
        assert [chunk.place.start for chunk in chunks] == [0, *(chunk.place.stop for chunk in chunks[:-1])]
        assert chunks[-1].place.stop == os.path.getsize(tmp_path / "a.tfrecord")

    @pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
    def test_compressed_tfrecord_is_one_series(self, tmp_path, pack):
        file = make(tmp_path / "a.tfrecord")
        plain = list(list_chunks(file, "auto", FIELDS, 3))
        packed = shards.write(tmp_path / "packed", pack((tmp_path / "a.tfrecord").read_bytes()))
        (series,) = list_chunks(packed, "auto", FIELDS, 3)
        assert [chunk.place for chunk in series] == [chunk.place for (chunk,) in plain]

    def test_bytes_limit_of_tfrecord(self, tmp_path):
        file = shards.write(tmp_path / "a.tfrecord", b"".join(shards.frame(bytes(n)) for n in (84, 84, 284, 84, 4)))
        sizes = [chunk.pairs for (chunk,) in list_chunks(file, "auto", FIELDS, 100, 200)]
        assert sizes == [2, 1, 2]

    @pytest.mark.parametrize(
        ("name", "content"),
        [("a.tfrecord", b""), ("a.tfrecord.gz", None), ("a.parquet", None)],
    )
    def test_an_empty_file_is_one_empty_chunk(self, tmp_path, name, content):
        file = shards.write(tmp_path / name, content) if content is not None else None
        if name == "a.parquet":
            schema = pa.schema([("generated", pa.binary()), ("target", pa.binary())])
            file = shards.write_parquet(tmp_path / name, schema.empty_table())
        ((chunk,),) = list_chunks(file or make(tmp_path / name, []), "auto", FIELDS)
        assert (chunk.pairs, chunk.error, chunk.format) == (0, "", name.split(".")[1])

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.parquet", b"", "0 bytes"),
            ("a.parquet", b"PAR1 no footer PAR1", "Arrow"),
            (
                "a.txt",
                b"id,generated",
                "has neither the name nor the content of a parquet or tfrecord or ",
            ),
            ("a.parquet", None, "FileNotFoundError"),
            ("a.tfrecord", None, "FileNotFoundError"),
            ("noname", None, "FileNotFoundError"),
            ("", None, "IsADirectoryError"),
        ],
    )
    def test_an_unreadable_file_is_one_chunk_with_its_error(self, tmp_path, name, content, message):
        path = tmp_path / name
        file = shards.write(path, content) if content is not None else InputFile(str(path), 0, 0.0)
        ((chunk,),) = list_chunks(file, "auto", FIELDS)
        assert chunk.pairs == 0
        assert message in chunk.error
        assert "\n" not in chunk.error
        assert chunk.path == str(path)

    def test_a_file_without_the_fields_is_one_chunk_with_its_error(self, tmp_path):
        ((chunk,),) = list_chunks(make(tmp_path / "a.parquet"), "auto", Fields(target="real"))
        assert "no field 'real'" in chunk.error
        assert "generated: binary" in chunk.error

    def test_a_file_lost_while_it_is_listed(self, tmp_path, monkeypatch):
        # Larger than the read buffer of a file, so that the rest is not there already.
        file = shards.write(tmp_path / "a.tfrecord", shards.frame(bytes(100_000)) * 6)
        # Without a descriptor to list it by, its child waits for the worker.
        monkeypatch.setattr(sandbox_pool, "_descriptor", lambda file: None)
        listing = list_chunks(file, "auto", FIELDS, 2)
        chunks = [*next(listing)]
        os.truncate(file.path, 210_000)
        chunks += [chunk for series in listing for chunk in series]
        assert [(chunk.start, chunk.stop, bool(chunk.error)) for chunk in chunks] == [(0, 2, False), (2, 2, True)]
        assert "shorter" in chunks[-1].error
