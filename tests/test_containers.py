"""The same pairs in every container: the same metrics bit for bit, and every broken or missing image counted."""

import csv
import json
import random
import zipfile
from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support import shards
from support.pictures import encode, noise, smooth
from support.tars import write_tar

from pipeline.run import OK, main

PAIRS = 30
SIDES = ("generated", "target", "mask")
OPTIONS = ("--losses=mae,ssim,gmsd,sobel_l1", "--quiet", "--chunk_pairs=7", "--batch_size=1")

Record = dict[str, bytes | str | None]


def make_records(seed: int, sides: Sequence[str]) -> list[Record]:
    """Pairs of three sizes; of a random fifth one of the images is missing, cut off or no image at all."""
    chance = random.Random(seed)
    records: list[Record] = []
    for number in range(PAIRS):
        height, format = 24 + number % 3, chance.choice(["PNG", "JPEG", "WEBP"])
        mask = np.full((height, 32), 255, np.uint8)
        mask[:, : number + 1] = 0
        images = (encode(noise(number, height, 32), format), encode(smooth(height, 32, number)), encode(mask))
        records.append({"id": f"{number:03}", **dict(zip(sides, images, strict=False))})
    for number, kind in zip(chance.sample(range(PAIRS), PAIRS // 10 * 2), ("missing", "cut", "none") * 2, strict=True):
        side = chance.choice(sides)
        image = records[number][side]
        assert isinstance(image, bytes)
        records[number][side] = {"missing": None, "cut": image[: len(image) // 2], "none": b"no image"}[kind]
    return records


def files_of(records: list[Record]) -> list[tuple[str, bytes]]:
    return [
        (f"{side}/{record['id']}.png", image)
        for record in records
        for side in SIDES
        if isinstance(image := record.get(side), bytes)
    ]


def sides_of(records: list[Record]) -> tuple[str, ...]:
    return tuple(side for side in SIDES if side in records[0])


def named(records: list[Record]) -> list[dict[str, str]]:
    return [{"id": str(r["id"]), **{side: f"{side}/{r['id']}.png" for side in sides_of(records)}} for r in records]


def as_array(image: bytes | str | None) -> np.ndarray | None:
    """The pixels of an image; none of one that is broken."""
    try:
        return np.asarray(Image.open(BytesIO(image)).convert("RGB")) if isinstance(image, bytes) else None
    except OSError:
        return None


def write_arrays(root: Path, records: list[Record]) -> dict[str, list[str]]:
    """Write the pixels of the pairs in every container of arrays, and return the flags that read them."""
    sides = sides_of(records)
    rows = [{"id": r["id"], **{side: as_array(r[side]) for side in sides}} for r in records]
    for side in sides:
        (root / "npy" / side).mkdir(parents=True)
        for row in rows:
            if row[side] is not None:
                np.save(root / "npy" / side / f"{row['id']}.npy", row[side])
    lists = [{n: v.tolist() if isinstance(v, np.ndarray) else v for n, v in row.items()} for row in rows]
    array3d = pa.list_(pa.list_(pa.list_(pa.uint8())))
    schema = pa.schema([("id", pa.string()), *((side, array3d) for side in sides)])
    shards.write_parquet(root / "arrays.parquet", pa.Table.from_pylist(lists, schema=schema))
    return {
        "npy": [*(f"--{side}={root}/npy/{side}" for side in sides), "--range=0..255"],
        "arrays": [f"--input={root}/arrays.parquet", "--range=0..255"],
    }


def write_all(root: Path, records: list[Record]) -> dict[str, list[str]]:
    """Write the pairs in every container, and return the flags that read them."""
    sides = sides_of(records)
    for name, image in files_of(records):
        shards.write(root / name, image)
    with zipfile.ZipFile(root / "both.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, image in files_of(records):
            archive.writestr(name, image)
    write_tar(
        root / "pairs.tar",
        [(f"{r['id']}.{side}.png", image) for r in records for side in sides if isinstance(image := r[side], bytes)],
    )
    shards.write_parquet(root / "pairs.parquet", pa.Table.from_pylist(records), row_group_size=11)
    lists = [{side: None if r[side] is None else [r[side]] for side in sides} for r in records]
    nested = [{"id": r["id"], "pair": pair} for r, pair in zip(records, lists, strict=True)]
    shards.write_parquet(root / "nested.parquet", pa.Table.from_pylist(nested))
    shards.write_tfrecord(root / "pairs.tfrecord.gz", records)
    shards.write_parquet(root / "paths.parquet", pa.Table.from_pylist(named(records)))
    shards.write(root / "paths.jsonl", "".join(json.dumps(row) + "\n" for row in named(records)).encode())
    texts = [{n: b64encode(v).decode() if isinstance(v, bytes) else v for n, v in record.items()} for record in records]
    shards.write(root / "base64.jsonl", "".join(json.dumps(row) + "\n" for row in texts).encode())
    with open(root / "paths.csv", "w") as file:
        writer = csv.DictWriter(file, ("id", *sides))
        writer.writeheader()
        writer.writerows(named(records))
    inputs = write_arrays(root, records)
    inputs |= {name: [f"--input={root / name}"] for name in ("pairs.parquet", "pairs.tar", "pairs.tfrecord.gz")}
    inputs |= {name: [f"--input={root / name}"] for name in ("paths.parquet", "paths.jsonl", "paths.csv")}
    return {
        "folders": [f"--{side}={root / side}" for side in sides],
        "zip": [f"--{side}={root}/both.zip/{side}/{{id}}.png" for side in sides],
        "base64": [f"--input={root}/base64.jsonl"],
        "nested": [f"--input={root}/nested.parquet", *(f"--{side}_field=pair.{side}" for side in sides)],
        **inputs,
    }


@pytest.mark.heavy
@pytest.mark.parametrize("sides", [SIDES[:2], pytest.param(SIDES, marks=pytest.mark.slow)], ids=["pairs", "masked"])
def test_every_container_gives_the_same_bits(tmp_path, sides):
    records = make_records(0, sides)
    expected: pa.Table | None = None
    for name, flags in write_all(tmp_path, records).items():
        output = tmp_path / "runs" / name
        if "mask" in sides and f"--input={tmp_path}" in flags[0] and name != "nested":
            flags = [*flags, "--mask_field=mask"]
        assert main([*flags, f"--output={output}", *OPTIONS]) == OK, name
        counts = json.loads((output / "run.json").read_text())["counts"]
        assert (counts["listed"], counts["scored"] + counts["failed"]) == (PAIRS, PAIRS), name
        lines = [line for path in (output / "failures").glob("*.jsonl") for line in path.read_text().splitlines()]
        assert len(lines) == counts["failed"] == PAIRS // 10 * 2, name
        table = pq.read_table(output / "metrics").drop_columns("source").sort_by("id")
        expected = table if expected is None else expected
        assert table == expected, name
