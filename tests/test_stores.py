"""Containers at `gs://` and `s3://` give the rows of the local ones."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import shards
from support.containers import SIDES, flags, write_containers
from support.pictures import encode, noise, smooth
from support.stores import get, put

from pipeline.run import OK, main
from transforms.storage.run_files import list_files

pytestmark = pytest.mark.heavy

RECORDS = ("pairs.jsonl", "pairs.parquet", "pairs.tfrecord.gz")
# test_gcs.py has the others.
IN_STORES = [("gcs", "zip"), ("gcs", "tar"), *(("s3", container) for container in ("folders", "zip", "tar", *RECORDS))]
OPTIONS = ("--losses=mae,ssim", "--chunk_pairs=4", "--batch_size=1", "--quiet")
PAIRS, BROKEN = 6, "pair-4"


@pytest.fixture(scope="module")
def containers(tmp_path_factory) -> Path:
    """The same pairs in every container; one generated image is broken."""
    root = tmp_path_factory.mktemp("containers")
    records = [
        {"id": f"pair-{n}", "generated": encode(noise(n, 24, 32), "JPEG"), "target": encode(smooth(24, 32, n))}
        for n in range(PAIRS)
    ]
    records[4]["generated"] = b"broken"
    write_containers(root, records)
    shards.write_parquet(root / "pairs.parquet", pa.Table.from_pylist(records))
    shards.write_tfrecord(root / "pairs.tfrecord.gz", records)
    named = [{"id": r["id"], **{side: f"{side}/{r['id']}.png" for side in SIDES}} for r in records]
    shards.write(root / "pairs.jsonl", "".join(json.dumps(row) + "\n" for row in named).encode())
    return root


@pytest.fixture(scope="module")
def expected(containers, tmp_path_factory) -> pa.Table:
    output = tmp_path_factory.mktemp("runs") / "local"
    assert main([f"--input={containers}/pairs.parquet", f"--output={output}", *OPTIONS]) == OK
    return pq.read_table(output / "metrics").drop_columns("source").sort_by("id")


@pytest.fixture(scope="module")
def buckets(gcs, s3, containers) -> dict[str, str]:
    """The containers in a bucket of each store."""
    paths = {name: server.create_bucket("containers") for name, server in (("gcs", gcs), ("s3", s3))}
    for path in containers.rglob("*.*"):
        for bucket in paths.values():
            put(f"{bucket}/in/{path.relative_to(containers)}", path.read_bytes())
    return paths


@pytest.mark.parametrize(("store", "container"), IN_STORES)
def test_the_same_rows(buckets, expected, store, container):
    output = f"{buckets[store]}/{container}"
    root = f"{buckets[store]}/in"
    given = [f"--input={root}/{container}"] if container in RECORDS else flags(root, container)
    assert main([*given, f"--output={output}", *OPTIONS]) == OK
    files = [pq.read_table(io.BytesIO(get(path))) for path in list_files(f"{output}/metrics")]
    table = pa.concat_tables(files)
    assert all(source.startswith(buckets[store]) for source in table["source"].to_pylist())
    assert table.drop_columns("source").sort_by("id") == expected
    (failed,) = [json.loads(get(path)) for path in list_files(f"{output}/failures")]
    assert failed["id"] == BROKEN
