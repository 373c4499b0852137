"""Bombs in every container: what claims, or unpacks to, gigabytes costs its own pair, and little memory.

Bombs in Parquet and TFRecord files are in `transforms/reading/test_sandboxed.py`, those in images in
`transforms/images/test_bombs.py`, and records that crash or hang in `test_poison.py`.
"""

import io
import json
import os
import resource
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from support import shards
from support.pictures import encode, smooth
from support.tars import write_tar

from pipeline.launch.prepare import find_inputs
from pipeline.parse import parse
from transforms.images.decode import DecodeError
from transforms.images.sandboxed import decode_pairs
from transforms.reading.list_chunks import list_chunks
from transforms.reading.read_chunks import read_series

GIGABYTE = 1 << 30
IMAGE = encode(smooth(16, 16))
PAIRS = ("0", "1", "2")
BOMB = "1"
# No tiny pair fails with 64 MiB.
LIMITS = (f"--max_record_memory={64 << 20}", "--losses=mae", "--quiet", "--range=0..255")


@cache
def deflated_zeros(size: int) -> bytes:
    """Zeros, deflated: a thousandth of their size."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    block = compressor.compress(bytes(1 << 24)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return block * (size >> 24) + compressor.flush()


def zipped(name: str, packed: bytes, claimed: int) -> bytes:
    """A zip file of one deflated member, whose size is what it claims."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr(name, packed)
    data = bytearray(sink.getvalue())
    for header, method, size in ((0, 8, 22), (data.rindex(b"PK\1\2"), 10, 24)):
        data[header + method : header + method + 2] = struct.pack("<H", zipfile.ZIP_DEFLATED)
        data[header + size : header + size + 4] = struct.pack("<I", claimed)
    return bytes(data)


def write_folders(root: Path, suffix: str = "png") -> Path:
    """Folders of good pairs, and the path of the image to replace."""
    for side in ("generated", "target"):
        for name in PAIRS:
            shards.write(root / side / f"{name}.png", IMAGE)
    bomb = root / "generated" / f"{BOMB}.{suffix}"
    (root / "generated" / f"{BOMB}.png").rename(bomb)
    return bomb


def folders(root: Path) -> list[str]:
    return [f"--generated={root}/generated", f"--target={root}/target"]


def sparse_image(root: Path) -> list[str]:
    os.truncate(write_folders(root), 4 * GIGABYTE)
    return folders(root)


def array_that_unpacks(root: Path) -> list[str]:
    write_folders(root, "npz").write_bytes(zipped("a.npy", deflated_zeros(GIGABYTE), GIGABYTE))
    return folders(root)


def named_image(root: Path) -> list[str]:
    os.truncate(write_folders(root), 4 * GIGABYTE)
    rows = [{"id": name, "generated": f"generated/{name}.png", "target": f"target/{name}.png"} for name in PAIRS]
    shards.write(root / "pairs.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    return [f"--input={root}/pairs.jsonl"]


def member(claimed: int) -> Callable[[Path], list[str]]:
    """Pairs in folders, one of them in a zip file, as a gigabyte that claims to be this many bytes."""

    def write(root: Path) -> list[str]:
        write_folders(root).unlink()
        (root / "bomb.zip").write_bytes(zipped(f"{BOMB}.png", deflated_zeros(GIGABYTE), claimed))
        return [f"--generated={root}/generated,{root}/bomb.zip", f"--target={root}/target"]

    return write


def tar(name: str) -> Callable[[Path], list[str]]:
    """A tar with a member of 4 GB of zeros, which the file system keeps as a hole."""

    def write(root: Path) -> list[str]:
        images = [(f"{pair}.{side}.png", IMAGE) for pair in PAIRS for side in ("generated", "target")]
        images = [(n, image) for n, image in images if n != name]
        path = write_tar(root / "pairs.tar", images, tarfile.GNU_FORMAT)
        header = tarfile.TarInfo(name)
        header.size = 4 * GIGABYTE
        place = [n for n, _ in images].index(f"{BOMB}.target.png") * 1024
        rest = path.read_bytes()[place:]
        with path.open("r+b") as file:
            file.seek(place)
            file.write(header.tobuf(tarfile.GNU_FORMAT))
            file.seek(header.size, os.SEEK_CUR)
            file.write(rest)
        return [f"--input={path}"]

    return write


# Per bomb what writes it among good pairs, and what becomes of its pair.
BOMBS: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "folder: an image of 4 GB": (sparse_image, "too_many_bytes"),
    "folder: an array that unpacks to 1 GB": (array_that_unpacks, "out_of_memory"),
    "manifest: an image of 4 GB": (named_image, "too_many_bytes"),
    "zip: a member that says it unpacks to 1 GB": (member(GIGABYTE), "too_many_bytes"),
    "zip: a member that unpacks to more than fits": (member(250 << 20), "out_of_memory"),
    "zip: a member that says it unpacks to 1 kB": (member(1000), "damaged_zip_member"),
    "tar: an image of 4 GB": (tar(f"{BOMB}.generated.png"), "too_many_bytes"),
    "tar: a JSON of 4 GB": (tar(f"{BOMB}.json"), "scored"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_its_own_pair(tmp_path: Path, name: str) -> None:
    write, outcome = BOMBS[name]
    flags = write(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert outcomes(tmp_path, flags) == {pair: outcome if pair == BOMB else "scored" for pair in PAIRS}
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << (10 if sys.platform == "linux" else 0)
    assert grown < 200 << 20


def outcomes(root: Path, flags: list[str]) -> dict[str, str]:
    """Per pair `scored` or the reason of its failure, after it was read and decoded as in a run."""
    config = parse([*flags, f"--output={root}/run", *LIMITS])
    files, listing, keep = find_inputs(config)
    if listing:
        shards.write(Path(files[0].path), listing)
    found: dict[str, str] = {}
    for file in files:
        for series in list_chunks(file, config.input_format, config.fields, sandbox=config.sandbox):
            for encoded in read_series(series, config.fields, keep, config.sandbox, config.policy.max_image_bytes):
                found |= {failure.id: failure.reason for failure in encoded.failures}
                ids = encoded.pairs["id"].to_pylist()
                pairs = zip(encoded.pairs["generated"].to_pylist(), encoded.pairs["target"].to_pylist(), strict=True)
                decoded = decode_pairs(list(pairs), config.policy, config.sandbox)
                reasons = [one.reason if isinstance(one, DecodeError) else "scored" for one in decoded]
                found |= dict(zip(ids, reasons, strict=True))
    return found
