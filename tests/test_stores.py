"""Both stores alike: containers in them give the rows of the local ones, and objects are listed and deleted."""

import io
import json
import re
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import shards
from support.containers import SIDES, flags, write_containers
from support.pictures import encode, noise, smooth
from support.stores import Fault, get, names, put

from pipeline.run import OK, main
from transforms.reading.input_files import files_below
from transforms.schema import Chunk
from transforms.storage.errors import READ_ERRORS
from transforms.storage.run_files import RunFiles, delete_directory, delete_file, list_files
from transforms.writing import chunk_files
from transforms.writing.chunk_files import WrittenChunks

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


class TestWrittenChunks:
    CHUNKS = tuple(Chunk(f"in-{n}", "in", "parquet", n, n + 1) for n in range(9))

    @pytest.fixture(scope="class", params=["gcs", "s3"])
    def store(self, request):
        """A server with a bucket."""
        server = request.getfixturevalue(request.param)
        server.create_bucket("written")
        return server

    def test_one_listing_answers_for_all(self, store, request):
        files = RunFiles(store.directory("written", request.node.name))
        for chunk in self.CHUNKS[:3]:
            put(files.metrics(chunk), b"content")
        written, begun = WrittenChunks(files), len(store.requests)
        assert [chunk in written for chunk in self.CHUNKS] == [True] * 3 + [False] * 6
        # Beam also looks for the directory itself at gs://.
        assert sum("/written" in one for one in store.requests[begun:]) <= 2
        put(files.metrics(self.CHUNKS[3]), b"content")
        written.forget()
        assert [chunk in written for chunk in self.CHUNKS] == [True] * 4 + [False] * 5

    def test_a_long_listing_waits_until_it_is_cheaper(self, store, request, monkeypatch):
        """As if a store listed two names at once, so that six cost as much as three questions."""
        monkeypatch.setattr(chunk_files, "_NAMES_PER_REQUEST", 2)
        files = RunFiles(store.directory("written", request.node.name))
        for chunk in self.CHUNKS[:6]:
            put(files.metrics(chunk), b"content")
        written, asks = WrittenChunks(files), []
        for _ in range(2):
            for chunk in self.CHUNKS:
                begun = len(store.requests)
                assert (chunk in written) == (chunk in self.CHUNKS[:6])
                asks.append(len(store.requests) > begun)
            written.forget()
        # Nothing is known of the directory at first.
        assert asks == [True] + [False] * 8 + [True] * 4 + [False] * 5

    def test_resuming_asks_for_no_chunk(self, store, containers, request):
        """Nothing is read of a chunk that is not done, and failures are looked up only where a pair has no metrics."""
        output = store.directory("written", request.node.name)
        command = [f"--input={containers}/pairs.parquet", f"--output={output}", *OPTIONS, "--chunk_pairs=1"]
        assert main(command) == OK
        delete_file(f"{output}/_SUCCESS")
        lost = sorted(list_files(f"{output}/metrics"))[0]
        delete_file(lost)
        begun = len(store.requests)
        assert main(command) == OK
        asked = [unquote(one) for one in store.requests[begun:] if one.startswith(("GET", "HEAD"))]
        assert not any(lost.partition("/metrics/")[2] in one for one in asked)
        failures = {number for one in asked if (number := re.search(r"/failures/.*-(\d+)\.jsonl", one))}
        assert {int(found[1]) for found in failures} == {1, 5}


@pytest.mark.parametrize(
    ("store", "deletion", "told"),
    [("gcs", Fault("POST /batch", 403), "does not have"), ("s3", Fault("POST .*delete", 403), "Access Denied")],
)
class TestListAndDelete:
    @pytest.fixture(scope="class")
    def stores(self, gcs, s3):
        """The servers, with a bucket each."""
        servers = {"gcs": gcs, "s3": s3}
        for server in servers.values():
            server.create_bucket("objects")
        return servers

    @pytest.fixture
    def output(self, stores, store, request) -> str:
        """A directory in the store's bucket that no other test uses."""
        return stores[store].directory("objects", request.node.name)

    @pytest.mark.usefixtures("deletion", "told")
    def test_odd_names(self, output):
        odd = [f"{output}/{name}" for name in ("a[1]", "b*", "c?", "d e", "ü", "e&f", "x/y")]
        for path in (*odd, f"{output}b/beside", f"{output}/folder/"):
            put(path, b"content")
        assert sorted(list_files(output, deep=True)) == sorted(odd)
        assert sorted(list_files(output)) == sorted(odd[:-1])
        assert sorted(file.path for file in files_below(f"{output}/", None)) == sorted(odd)
        delete_file(odd[1])
        delete_file(odd[1])
        assert sorted(list_files(output, deep=True)) == sorted({*odd} - {odd[1]})
        delete_directory(output)
        delete_directory(output)
        assert names(output) == []
        assert names(f"{output}b") == ["beside"]

    def test_failed_deletion_is_told(self, stores, output, store, deletion, told):
        put(f"{output}/a", b"content")
        with stores[store].refusing(deletion), pytest.raises(READ_ERRORS, match=told):
            delete_file(f"{output}/a")
