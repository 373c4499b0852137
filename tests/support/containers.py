"""The same pairs in every container: folders, a zip file, a tar, Parquet, TFRecord, and a manifest of the folders."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from support import shards
from support.tars import write_tar

SIDES = ("generated", "target")
RECORDS = {name: f"pairs.{name}" for name in ("tar", "parquet", "tfrecord.gz", "jsonl")}
CONTAINERS = ("folders", "zip", *RECORDS)


def write_containers(root: Path, pairs: Sequence[Mapping[str, str | bytes]], suffix: str = "png") -> None:
    """Write pairs with `id`, `generated` and `target` below a directory; `flags` reads them.

    Args:
        root: the directory.
        pairs: the pairs, whose images are bytes.
        suffix: of the names of image files.
    """
    files = [(pair["id"], side, pair[side]) for pair in pairs for side in SIDES]
    for name, side, image in files:
        shards.write(root / side / f"{name}.{suffix}", image)
    with zipfile.ZipFile(root / "both.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, side, image in files:
            archive.writestr(f"{side}/{name}.{suffix}", image)
    write_tar(root / RECORDS["tar"], [(f"{name}.{side}.{suffix}", image) for name, side, image in files])
    shards.write_parquet(root / RECORDS["parquet"], pa.Table.from_pylist(pairs))
    shards.write_tfrecord(root / RECORDS["tfrecord.gz"], pairs)
    named = [{"id": pair["id"], **{side: f"{side}/{pair['id']}.{suffix}" for side in SIDES}} for pair in pairs]
    shards.write(root / RECORDS["jsonl"], "".join(json.dumps(row) + "\n" for row in named).encode())


def flags(root: object, container: str) -> tuple[str, ...]:
    """The flags that read one of the `CONTAINERS`."""
    if container in RECORDS:
        return (f"--input={root}/{RECORDS[container]}",)
    inside = f"{root}/both.zip" if container == "zip" else root
    return tuple(f"--{side}={inside}/{side}" for side in SIDES)
