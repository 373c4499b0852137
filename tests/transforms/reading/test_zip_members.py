"""Zip files as folders: pairs in them, and hostile archives."""

import io
import json
import random
import zipfile
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support import shards
from support.pictures import encode, noise, smooth

from pipeline.run import OK, USAGE, main
from transforms.reading import zip_members
from transforms.reading.pairing import pair_files
from transforms.reading.record_error import RecordError
from transforms.reading.zip_members import ZipMember, list_members, read_members
from transforms.worker.sandbox import Sandbox

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def archive(content: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as file:
        for name, data in content.items():
            file.writestr(name, data)
    return sink.getvalue()


def members(data: bytes) -> dict[str, ZipMember]:
    return dict(list_members(io.BytesIO(data), Sandbox()))


def read(data: bytes, *wanted: ZipMember, sandbox: Sandbox = Sandbox(), most: int = 1 << 28) -> list[bytes | str]:
    """The data of these members, or of all, or the reason why it cannot be had."""
    chosen = wanted or tuple(members(data).values())
    found = read_members(io.BytesIO(data), chosen, sandbox, most)
    return [one.reason if isinstance(one, RecordError) else one for one in found]


def message(data: bytes, *wanted: ZipMember, most: int = 1 << 28) -> str:
    """The error of the one member."""
    (error,) = read_members(io.BytesIO(data), wanted or tuple(members(data).values()), Sandbox(), most)
    assert isinstance(error, RecordError)
    return str(error)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("before", [b"", b"a program that unpacks itself"])
def test_members_are_read_by_their_place(method, before):
    content = {"a.png": b"a" * 10_000, "d/é.png": bytes(range(256)), "empty": b"", "d/": b""}
    data = before + archive(content, method)
    found = members(data)
    assert list(found) == ["a.png", "d/é.png", "empty"]
    assert read(data, *found.values()) == [content[name] for name in found]


@pytest.mark.parametrize("method", METHODS)
def test_damage_is_found(method):
    content = {f"{number}.png": random.Random(number).randbytes(1000) for number in range(3)}
    data = bytearray(archive(content, method))
    data[200] ^= 255
    assert read(bytes(data)) == ["damaged_zip_member", content["1.png"], content["2.png"]]


class TestHostile:
    def test_a_bomb_is_not_unpacked_beyond_its_size(self):
        data = archive({"a.png": bytes(50 << 20)})
        (member,) = members(data).values()
        assert "1001 bytes are not the 1000" in message(data, replace(member, size=1000))
        assert "max_image_bytes is 1000" in message(data, member, most=1000)
        # A member that claims to take less unpacked than packed is not read beyond that either.
        assert read(data, replace(member, packed=1 << 40, size=10)) == ["too_many_bytes"]

    def test_a_bomb_fails_alone(self):
        data = archive({"a.png": b"a", "b.png": bytes(100 << 20), "c.png": b"c"})
        assert read(data, sandbox=Sandbox(memory=64 << 20)) == [b"a", "out_of_memory", b"c"]

    def test_the_worker_unpacks_nothing_itself(self, monkeypatch):
        """A child does, which sees no change of the worker's modules."""
        monkeypatch.setattr(zip_members.zlib, "decompressobj", None)
        data = archive({"a.png": b"a" * 100})
        assert read(data) == [b"a" * 100]
        with pytest.raises(TypeError):
            read(data, sandbox=Sandbox(enabled=False))

    def test_stored_members_need_no_child(self, monkeypatch):
        data = archive({"a.png": b"a" * 100}, zipfile.ZIP_STORED)
        found = tuple(members(data).values())
        monkeypatch.setattr(Sandbox, "each", None)
        assert read(data, *found) == [b"a" * 100]

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_other_methods_are_named(self, method):
        assert "packed by method" in message(archive({"a.png": b"a" * 100}, method))

    def test_an_encrypted_member_is_named(self):
        data = bytearray(archive({"a.png": b"a" * 100}, zipfile.ZIP_STORED))
        data[6] |= 1
        assert "encrypted" in message(bytes(data))

    def test_a_place_without_a_member(self):
        assert "no member" in message(b"x" * 100, ZipMember(50, 10, 10, 0))

    @pytest.mark.parametrize("cut", [0, 10, 50, 150])
    def test_a_cut_archive_ends_before_the_run(self, tmp_path, capsys, cut):
        shards.write(tmp_path / "out.zip", archive({f"{n}.png": b"x" for n in range(3)})[:cut])
        shards.write(tmp_path / "gt" / "0.png", b"x")
        assert main([f"--generated={tmp_path}/out.zip", f"--target={tmp_path}/gt", f"--output={tmp_path}/run"]) == USAGE
        assert "not a zip file" in capsys.readouterr().err


@pytest.fixture
def pairs(tmp_path) -> Path:
    """Folders of eight pairs, one of which is broken, and the same as zip files."""
    for side in ("out", "gt"):
        content = {}
        for number in range(8):
            image = encode(noise(number, 20, 24) if side == "out" else smooth(20, 24, number))
            content[f"{number}.png"] = b"broken" if (side, number) == ("out", 3) else image
            shards.write(tmp_path / side / f"{number}.png", content[f"{number}.png"])
        for method in METHODS:
            shards.write(tmp_path / f"{side}{method}.zip", archive(content, method))
    return tmp_path


@pytest.mark.parametrize(
    ("generated", "target"),
    [("out8.zip", "gt"), ("out0.zip/*.png", "gt/*.png"), ("out8.zip/{id}.png", "gt8.zip/{id}.png"), ("out", "gt0.zip")],
)
@pytest.mark.heavy
def test_a_run_of_zip_files_gives_the_rows_of_folders(pairs, generated, target):
    def run(name: str, generated: str, target: str) -> tuple[list[dict[str, object]], list[str]]:
        flags = [f"--generated={pairs}/{generated}", f"--target={pairs}/{target}", f"--output={pairs}/{name}"]
        assert main([*flags, "--losses=mae,ssim", "--quiet", "--batch_size=1", "--chunk_pairs=3"]) == OK
        lines = [line for path in (pairs / name / "failures").iterdir() for line in path.read_text().splitlines()]
        table = pq.read_table(pairs / name / "metrics").drop_columns("source").sort_by("id")
        return table.to_pylist(), [json.loads(line)["id"] for line in lines]

    assert run("zipped", generated, target) == run("folders", "out", "gt")


def test_names_do_not_leave_the_archive(tmp_path):
    shards.write(tmp_path / "out.zip", archive({"../../etc/passwd.png": b"x", "0.png": b"x"}))
    shards.write(tmp_path / "gt" / "0.png", b"x")
    found = pair_files([f"{tmp_path}/out.zip/**"], [f"{tmp_path}/gt/**"])
    assert {pair.id: pair.reason for pair in found} == {"0.png": "", "../../etc/passwd.png": "no_target"}


def test_a_directory_larger_than_the_file():
    with pytest.raises(OSError, match="not a zip file, or a damaged one"):
        members(archive({"a.png": b"a"})[:-10] + (9999).to_bytes(4, "little") + bytes(6))


def test_a_member_before_the_beginning():
    assert read(archive({"a.png": b"a"}), ZipMember(-64, 1, 1, 0)) == ["damaged_zip_member"]
