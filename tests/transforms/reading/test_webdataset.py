"""WebDataset tars: samples, their json, and hostile files."""

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from support import shards
from support.tars import write_tar

from transforms.reading.list_chunks import check_fields, list_chunks
from transforms.reading.read_chunks import read_series
from transforms.schema import EncodedChunk, Fields, Part

FIELDS = Fields(("input.png",), "target.png")


def members(count: int = 5) -> list[tuple[str, bytes]]:
    """The members of samples with images and json."""
    return [
        member
        for n in range(count)
        for member in (
            (f"set/{n:03}.input.png", f"input {n}".encode() * (n + 1)),
            (f"set/{n:03}.target.png", f"target {n}".encode()),
            (f"set/{n:03}.json", json.dumps({"model": f"m{n % 2}", "size": n}).encode()),
        )
    ]


def read(path: Path, fields: Fields = FIELDS, keep: Sequence[pa.Field] = (), pairs: int = 2) -> list[EncodedChunk]:
    series = list(list_chunks(shards.input_file(path), "auto", fields, pairs))
    encoded = [chunk for one in series for chunk in read_series(one, fields, keep)]
    for one in encoded:
        assert len(one.pairs) + sum(f.scope == "pair" for f in one.failures) == one.chunk.pairs
    return encoded


def rows(encoded: Sequence[EncodedChunk]) -> list[dict[str, object]]:
    return pa.concat_tables(one.pairs for one in encoded).to_pylist()


def reasons(encoded: Sequence[EncodedChunk]) -> dict[str, str]:
    return {failure.id: failure.reason for one in encoded for failure in one.failures}


class TestRead:
    @pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_samples_are_pairs(self, tmp_path, format):
        path = write_tar(tmp_path / "a.tar", members(), format)
        keep = (pa.field("model", pa.string()), pa.field("size", pa.int64()))
        encoded = read(path, Fields(("input.png",), "target.png", keep=("model", "size")), keep)
        assert [chunk.chunk.pairs for chunk in encoded] == [2, 2, 1]
        assert rows(encoded) == [
            {
                "id": f"set/{n:03}",
                "source": f"{path}#{n}",
                "generated": f"input {n}".encode() * (n + 1),
                "target": f"target {n}".encode(),
                "model": f"m{n % 2}",
                "size": n,
            }
            for n in range(5)
        ]

    @pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_long_names(self, tmp_path, format):
        name = f"{'d' * 90}/{'é' * 120}"
        path = write_tar(tmp_path / "a.tar", [(f"{name}.input.png", b"a"), (f"{name}.target.png", b"b")], format)
        assert [row["id"] for row in rows(read(path))] == [name]

    def test_names_without_extension_and_candidates(self, tmp_path):
        content = [("0.a.png", b"a"), ("0.b.jpg", b"b"), ("0.gt.png", b"t")]
        encoded = read(write_tar(tmp_path / "a.tar", content), Fields(("a", "b"), "gt"))
        assert [(row["generated"], row["target"]) for row in rows(encoded)] == [(b"a", b"t"), (b"b", b"t")]

    def test_joined_archives_and_other_members(self, tmp_path):
        first = write_tar(tmp_path / "1.tar", [("README", b"x"), *members(1), (".hidden.png", b"y")]).read_bytes()
        second = write_tar(tmp_path / "2.tar", members(3)[3:]).read_bytes()
        path = Path(shards.write(tmp_path / "both.tar", first + second).path)
        assert [row["id"] for row in rows(read(path))] == ["set/000", "set/001", "set/002"]

    def test_a_file_without_its_name(self, tmp_path):
        path = write_tar(tmp_path / "shard", members())
        assert len(rows(read(path))) == 5

    def test_check_fields(self, tmp_path):
        path = str(write_tar(tmp_path / "a.tar", members()))
        kept = check_fields(path, "tar", Fields(("input.png",), "target.png", keep=("model", "size")))
        assert kept == (pa.field("model", pa.string()), pa.field("size", pa.int64()))
        with pytest.raises(ValueError, match="no field 'generated'") as caught:
            check_fields(path, "tar", Fields())
        assert "Fields found: " in str(caught.value)
        assert "input.png: binary" in str(caught.value)


class TestHostile:
    def test_names_that_are_not_utf8_cost_no_other_sample(self, tmp_path):
        odd = [(f"\udcff{name}", data) for name, data in members(2)[:4] if name != "set/001.input.png"]
        encoded = read(write_tar(tmp_path / "a.tar", [*members(1), *odd], tarfile.GNU_FORMAT), pairs=9)
        assert [row["id"] for row in rows(encoded)] == ["set/000", "\\xffset/000"]

    def test_a_member_without_a_name_is_a_failure(self, tmp_path):
        path = write_tar(tmp_path / "a.tar", members(2))
        data = bytearray(path.read_bytes())
        # A header without a name, with its checksum made right, of an empty member.
        header = bytearray(data[:512])
        header[:100] = bytes(100)
        header[124:136] = b"00000000000\0"
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        path.write_bytes(bytes(header) + data)
        encoded = read(path)
        assert list(reasons(encoded).values()) == ["damaged_member"]
        assert len(rows(encoded)) == 2

    def test_members_apart_are_a_failure(self, tmp_path):
        content = members(4)
        content.append(content.pop(1))
        encoded = read(write_tar(tmp_path / "a.tar", content))
        assert [row["id"] for row in rows(encoded)] == ["set/001", "set/002", "set/003"]
        found = [(failure.id, failure.reason) for one in encoded for failure in one.failures]
        assert found == [("set/000", "missing_field"), (f"a.tar#{4}", "split_sample")]

    @pytest.mark.parametrize("cut", range(-20, 3500, 157))
    def test_cut_anywhere(self, tmp_path, cut):
        whole = write_tar(tmp_path / "a.tar", members(3), tarfile.USTAR_FORMAT)
        size = 3 * 3 * 1024
        path = Path(shards.write(tmp_path / "b.tar", whole.read_bytes()[: size - 1 - cut]).path)
        encoded = read(path)
        # A cut in the json, or in what fills up the last target, costs no pair.
        assert len(rows(encoded)) < 3 or cut < 1024 + 504
        assert set(reasons(encoded).values()) <= {"truncated_member", "missing_field"}

    @pytest.mark.parametrize("place", [0, 512 * 6, 512 * 8 + 100])
    def test_damage_in_the_middle(self, tmp_path, place):
        data = bytearray(write_tar(tmp_path / "a.tar", members(), tarfile.USTAR_FORMAT).read_bytes())
        data[place : place + 512] = b"\xff" * 512
        encoded = read(Path(shards.write(tmp_path / "b.tar", bytes(data)).path))
        assert {"set/003", "set/004"} <= {row["id"] for row in rows(encoded)}
        assert "damaged_member" in reasons(encoded).values()

    @pytest.mark.parametrize("data", [b"", b"\0" * 5000, b"\xff" * 5000, b"\0" * 600 + b"x" * 600])
    def test_no_tar(self, tmp_path, data):
        encoded = read(Path(shards.write(tmp_path / "a.tar", data).path))
        assert rows(encoded) == []

    def test_a_member_that_claims_to_be_huge_costs_itself(self, tmp_path):
        info = tarfile.TarInfo("0.input.png")
        info.size = 1 << 60
        path = Path(shards.write(tmp_path / "a.tar", info.tobuf(tarfile.GNU_FORMAT) + b"x" * 1000).path)
        assert set(reasons(read(path)).values()) == {"truncated_member"}

    @pytest.mark.parametrize("text", [b"[" * 100_000, b"{", b"[]", b'{"model": {"a": 1}}'])
    def test_damaged_json_costs_no_pair(self, tmp_path, text):
        content = [(name, text if name == "set/001.json" else data) for name, data in members(2)]
        keep = (pa.field("model", pa.string()),)
        encoded = read(
            write_tar(tmp_path / "a.tar", content), Fields(("input.png",), "target.png", keep=("model",)), keep
        )
        assert [row["model"] for row in rows(encoded)] == ["m0", None]

    def test_a_child_names_no_other_file(self, tmp_path):
        """The places that reading gives are in the file itself."""
        from transforms.reading.image_paths import NamedPair, Place, named_chunk
        from transforms.reading.named_images import fetch_images
        from transforms.schema import Chunk

        secret = shards.write(tmp_path / "secret", b"secret").path
        pair = NamedPair("a", "s#0", (Place(secret, 0, 6), Place("", 0, 6)))
        chunk = Chunk("c", str(tmp_path / "set/a.tar"), "tar", 0, 1)
        encoded = fetch_images(named_chunk(chunk, [pair], ()), str(tmp_path / "set"), ())
        assert [failure.reason for failure in encoded.failures] == ["outside_root"]


def test_a_chunk_ends_before_it_has_too_many_bytes(tmp_path):
    path = write_tar(tmp_path / "a.tar", members())
    chunks = [chunk for (chunk,) in list_chunks(shards.input_file(path), "auto", FIELDS, 100, 8000)]
    assert [chunk.pairs for chunk in chunks] == [2, 2, 1]
    assert not any(isinstance(chunk, Part) for chunk in chunks)
