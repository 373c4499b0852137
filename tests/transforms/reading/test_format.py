"""A new input format is one row of `FORMATS` with its functions: JSON lines with images in base64 stand for it."""

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import shards
from support.pictures import encode, noise, smooth

from pipeline import parse
from pipeline.run import OK, USAGE, main
from transforms.failure import pair_failure
from transforms.reading.format import AUTO, FORMATS, Format, chunk_name
from transforms.reading.input_files import InputFile
from transforms.reading.list_chunks import list_chunks
from transforms.schema import EncodedChunk, Fields, Part, encoded_schema

IMAGES = ("generated", "target")
BAD = 4


@dataclass(frozen=True)
class FirstByte:
    """The place of a chunk: where its first line begins."""

    offset: int


def claims(path, head):
    return path.endswith(".jsonl") or head.startswith(b'{"')


def read_schema(file, fields):
    record = json.loads(file.readline())
    return pa.schema([(name, pa.binary() if name in IMAGES else pa.scalar(record[name]).type) for name in record])


def list_lines(file, fields, chunk_pairs, chunk_bytes):
    offsets = [0]
    while file.readline():
        offsets.append(file.tell())
    for first in range(0, len(offsets) - 1, chunk_pairs):
        yield [Part(min(chunk_pairs, len(offsets) - 1 - first), FirstByte(offsets[first]))]


def read_lines(file, series, fields, keep):
    for chunk in series:
        file.seek(chunk.place.offset)
        rows, failures = [], []
        for number in range(chunk.start, chunk.stop):
            record, source = json.loads(file.readline()), f"{chunk.path}#{number}"
            try:
                images = {name: base64.b64decode(record[name], validate=True) for name in IMAGES}
                rows.append(record | images | {"source": source})
            except ValueError as error:
                failures.append(pair_failure(record["id"], source, "read", "not_base64", str(error)))
        yield EncodedChunk(chunk, pa.Table.from_pylist(rows, schema=encoded_schema(keep)), tuple(failures))


JSONL = Format(claims, read_schema, list_lines, read_lines, FirstByte, {"not_base64": "an image is not base64"})


def pairs(count):
    images = [(encode(noise(n, 16, 20)), encode(smooth(16, 20, n))) for n in range(count)]
    return [{"id": f"p{n}", "generated": g, "target": t, "label": f"l{n % 2}"} for n, (g, t) in enumerate(images)]


def write_jsonl(path: Path, rows) -> Path:
    rows = [row | {name: base64.b64encode(row[name]).decode() for name in IMAGES} for row in rows]
    rows[BAD] |= {"target": "no base64!"}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.heavy
class TestNewFormat:
    @pytest.fixture(autouse=True)
    def row(self, monkeypatch):
        make_parser = parse.parser

        def parser():
            flags = make_parser()
            # The choices are made when pipeline.parse is imported, which another test may have done.
            next(flag for flag in flags._actions if flag.dest == "input_format").choices = (AUTO, *FORMATS)
            return flags

        monkeypatch.setitem(FORMATS, "jsonl", JSONL)
        monkeypatch.setattr("pipeline.parse.parser", parser)

    @pytest.mark.parametrize(
        ("name", "flags"),
        [("pairs.jsonl", []), ("by content", []), ("pairs.parquet", ["--input_format=jsonl"])],
        ids=["by name", "by content", "by flag"],
    )
    def test_is_scored_and_resumed(self, tmp_path, name, flags):
        rows = pairs(11)
        path, output = write_jsonl(tmp_path / name, rows), tmp_path / "run"
        command = [f"--input={path}", f"--output={output}", "--losses=mae,psnr", "--keep_fields=label"]
        command += ["--chunk_pairs=3", "--quiet", *flags]
        assert main(command) == OK
        chunks = sorted((output / "metrics").iterdir())
        assert [chunk.name[-27:-8] for chunk in chunks] == [
            *("000000000-000000003", "000000003-000000006", "000000006-000000009", "000000009-000000011")
        ]
        (failure,) = map(json.loads, "".join(f.read_text() for f in (output / "failures").iterdir()).splitlines())
        assert (failure["id"], failure["reason"], failure["source"]) == (f"p{BAD}", "not_base64", f"{path}#{BAD}")
        table = pq.read_table(output / "metrics")

        (output / "_SUCCESS").unlink()
        chunks[2].unlink()
        kept = {chunk: chunk.stat().st_mtime_ns for chunk in chunks if chunk.exists()}
        assert main(command) == OK
        assert {chunk: chunk.stat().st_mtime_ns for chunk in kept} == kept
        assert pq.read_table(output / "metrics") == table

        parquet = shards.write_parquet(tmp_path / "same.parquet", pa.Table.from_pylist(rows))
        assert main([f"--input={parquet.path}", f"--output={tmp_path / 'same'}", *command[2:4], "--quiet"]) == OK
        same = pq.read_table(tmp_path / "same/metrics").to_pylist()
        assert table.drop_columns("source").to_pylist() == [
            {name: value for name, value in row.items() if name != "source"} for row in same if row["id"] != f"p{BAD}"
        ]

    def test_its_fields_are_checked_before_the_run(self, tmp_path, capsys):
        path = write_jsonl(tmp_path / "pairs.jsonl", pairs(5))
        assert main([f"--input={path}", f"--output={tmp_path / 'run'}", "--target_field=real"]) == USAGE
        assert "no field 'real' (--target_field)" in capsys.readouterr().err

    def test_other_files_are_still_told_apart(self, tmp_path):
        file = shards.write_parquet(tmp_path / "x", pa.Table.from_pylist(pairs(2)))
        ((chunk,),) = list_chunks(file, "auto", Fields())
        assert (chunk.format, chunk.pairs, chunk.error) == ("parquet", 2, "")


class TestChunkNames:
    @pytest.mark.parametrize(
        ("name", "slug"),
        [
            ("pairs.parquet", "pairs"),
            ("train-00000-of-00010.tfrecord.gz", "train-00000-of-00010"),
            ("train.tfrecord-00000-of-00010", "train-00000-of-00010"),
            ("_.hidden.parquet", "hidden"),
            ("ünsafe name*?.pq", "nsafe_name_"),
            ("日本.parquet", "file"),
            ("x" * 200 + ".parquet", "x" * 80),
        ],
    )
    def test_tell_the_file_and_are_safe(self, tmp_path, name, slug):
        ((chunk,),) = list_chunks(InputFile(str(tmp_path / name), 0, 0.0), "auto", Fields())
        assert re.fullmatch(rf"{slug}-[0-9a-f]{{16}}-000000000-000000000", chunk.name)

    def test_unique_where_32_bits_of_the_hash_are_equal(self):
        paths = [f"day={day}/pairs.parquet" for day in (46871, 61742)]
        assert len({hashlib.sha256(path.encode()).hexdigest()[:8] for path in paths}) == 1
        assert len({chunk_name(path, "parquet", 0, 4) for path in paths}) == 2

    def test_unique_over_files_of_one_base_name(self, tmp_path):
        files = [shards.write_tfrecord(tmp_path / folder / "pairs.tfrecord", shards.rows(10)) for folder in "ab"]
        names = [chunk.name for file in files for series in list_chunks(file, "auto", Fields(), 4) for chunk in series]
        assert len(set(names)) == 6
        assert [name[-20:] for name in names[:3]] == [
            "-000000000-000000004"[-20:],
            "-000000004-000000008"[-20:],
            "-000000008-000000010"[-20:],
        ]
        again = [chunk.name for (chunk,) in list_chunks(files[0], "auto", Fields(), 4)]
        assert again == names[:3]
