"""Runs and audits at `gs://`, with a local server that speaks the protocol of Google Cloud Storage."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import shards
from support.gcs_server import ACCOUNT, GcsServer
from support.pictures import encode, noise, smooth
from support.stores import Fault, get, names, put, table

from pipeline.audit.__main__ import main as audit
from pipeline.run import CRASH, OK, USAGE, main
from transforms.schema import CHUNK_KEY
from transforms.storage import run_files
from transforms.storage.run_files import list_files

pytestmark = pytest.mark.heavy

PAIRS, CHUNK_PAIRS = 10, 4
OPTIONS = ("--losses=mae", "--keep_fields=label", f"--chunk_pairs={CHUNK_PAIRS}", "--quiet")
RULES = "rules:\n  - {rule: pairs, min: 1}\n  - {rule: drift, column: mae, distance: ks, max: 0.5}\n"
BUCKET = "gs://pairs"


def pairs(count: int = PAIRS) -> list[dict[str, object]]:
    images = ((smooth(32, 40, number), noise(number, 32, 40)) for number in range(count))
    return [
        {"id": f"pair/{number}", "generated": encode(noisy, "JPEG"), "target": encode(target), "label": number % 3}
        for number, (target, noisy) in enumerate(images)
    ]


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Path:
    """A directory with the same pairs in each format."""
    directory = tmp_path_factory.mktemp("local")
    shards.write_parquet(directory / "pairs.parquet", pa.Table.from_pylist(pairs()))
    for name in ("pairs.tfrecord", "pairs.tfrecord.gz"):
        shards.write_tfrecord(directory / name, pairs())
    return directory


@pytest.fixture(scope="module")
def gcs(gcs, local, lpips_weights):
    """The server, with the same files in a bucket."""
    gcs.create_bucket("pairs")
    for path in local.iterdir():
        put(f"{BUCKET}/in/{path.name}", path.read_bytes())
    return gcs


@pytest.fixture
def output(gcs, request) -> str:
    """A directory in the bucket that no other test uses."""
    return gcs.directory("pairs", request.node.name)


def metrics(output: object) -> pa.Table:
    return table(f"{output}/metrics")


def run(pattern: object, output: object, *arguments: str, expected: int = OK) -> None:
    assert main([f"--input={pattern}", f"--output={output}", *OPTIONS, *arguments]) == expected


class TestRun:
    def test_rows_of_every_format_equal_those_of_a_local_run(self, gcs, local, output, tmp_path):
        run(local / "*", tmp_path / "run")
        run(f"{BUCKET}/in/*.parquet,{BUCKET}/in/*.tfrecord*", output)
        here, there = metrics(tmp_path / "run"), metrics(output)
        assert here.drop_columns("source") == there.drop_columns("source")
        marks = [{**one.schema.metadata, CHUNK_KEY: b""} for one in (here, there)]
        assert marks[0] == marks[1]
        assert len(there) == 3 * PAIRS
        sources = [source.replace(f"{BUCKET}/in", str(local)) for source in there["source"].to_pylist()]
        assert sources == here["source"].to_pylist()

    @pytest.mark.parametrize("names", ["templates", "directories"])
    def test_folders(self, gcs, output, tmp_path, names, capsys):
        suffix = "x4" if names == "templates" else ""
        for row in pairs():
            name = f"[{row['label']}]/{row['id']}"
            for root in (tmp_path, output):
                for path, side in ((f"out/{name}{suffix}.jpg", "generated"), (f"gt/{name}.png", "target")):
                    content = row[side]
                    if root is tmp_path:
                        shards.write(tmp_path / path, content)
                    else:
                        put(f"{root}-in/{path}", content)
        put(f"{output}-in/gt/lonely.png", b"")
        shards.write(tmp_path / "gt/lonely.png", b"")
        tables = []
        for root, run_directory in ((str(tmp_path), tmp_path / "run"), (f"{output}-in", output)):
            sides = [f"--generated={root}/out", f"--target={root}/gt"]
            if names == "templates":
                sides = [f"--generated={root}/out/{{id:path}}x4.jpg", f"--target={root}/gt/{{id:path}}.png"]
            assert main([*sides, f"--output={run_directory}", "--losses=mae", "--chunk_pairs=4", "--quiet"]) == OK
            tables.append(metrics(run_directory))
        assert tables[0].drop_columns("source") == tables[1].drop_columns("source")
        assert len(tables[0]) == PAIRS
        assert tables[0]["id"].to_pylist() == sorted(f"[{row['label']}]/{row['id']}" for row in pairs())
        (failed,) = [get(path) for path in list_files(f"{output}/failures")]
        assert json.loads(failed)["reason"] == "no_generated"
        assert audit(["report", output]) == OK
        assert "have no pictures" not in capsys.readouterr().err

    def test_manifest(self, gcs, output):
        for row in pairs(2):
            for side in ("generated", "target"):
                put(f"{output}-in/{row['id']}/{side}", row[side])
        lines = [{side: f"{row['id']}/{side}" for side in ("generated", "target")} for row in pairs(2)]
        lines.append(lines[0] | {"target": "gs://pairs/in/pairs.parquet"})
        put(f"{output}-in/m.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
        assert main([f"--input={output}-in/m.jsonl", f"--output={output}", "--losses=mae", "--quiet"]) == OK
        assert len(metrics(output)) == 2
        (failed,) = [get(path) for path in list_files(f"{output}/failures")]
        assert json.loads(failed)["reason"] == "outside_root"

    def test_files(self, gcs, output):
        broken = {"id": "broken", "generated": b"none", "target": b"none", "label": 1}
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([*pairs(2), broken]), sink)
        put(f"{output}.parquet", sink.getvalue())
        run(f"{output}.parquet", output, "--metrics_format=csv")
        found = names(output)
        assert [name.partition("/")[0] for name in found] == [
            *("_SUCCESS", "failures", "metrics", "metrics_csv", "run.json", "summary.json")
        ]
        record = json.loads(get(f"{output}/run.json"))
        assert (record["status"], record["counts"]["scored"], record["counts"]["failed"]) == ("finished", 2, 1)
        assert json.loads(get(f"{output}/summary.json"))["losses"]["mae"]["count"] == 2
        assert json.loads(get(f"{output}/{found[1]}"))["id"] == "broken"

    @pytest.mark.parametrize("format", ["parquet", "png"])
    def test_optimized_images(self, gcs, local, output, tmp_path, format):
        options = ("--optimize", "--objective=mse", "--max_steps=2", f"--optimized_format={format}")
        run(local / "pairs.parquet", tmp_path / "run", *options)
        run(f"{BUCKET}/in/pairs.parquet", output, *options)
        assert metrics(output).drop_columns("source") == metrics(tmp_path / "run").drop_columns("source")
        if format == "parquet":
            here, there = (table(f"{directory}/optimized")["image"] for directory in (tmp_path / "run", output))
            assert here == there
        else:
            # The names differ, because they contain a hash of the source.
            there = {get(path) for path in list_files(f"{output}/optimized")}
            assert there == {path.read_bytes() for path in (tmp_path / "run" / "optimized").iterdir()}
            assert len(there) == PAIRS

    def test_second_run_is_refused_until_overwrite(self, gcs, output, capsys):
        pattern = f"{BUCKET}/in/pairs.parquet"
        run(pattern, output)
        before = {path: get(path) for path in list_files(f"{output}/metrics")}
        put(f"{output}/mine.txt", b"not of the run")
        run(pattern, output, expected=USAGE)
        assert "holds a finished run" in capsys.readouterr().err
        run(pattern, output, "--overwrite", "--chunk_pairs=5")
        after = set(list_files(f"{output}/metrics"))
        assert len(after) == PAIRS / 5
        assert not after & before.keys()
        assert get(f"{output}/mine.txt") == b"not of the run"

    def test_directory_of_others_is_refused(self, gcs, output, capsys):
        put(f"{output}/theirs", b"")
        run(f"{BUCKET}/in/pairs.parquet", output, "--overwrite", expected=USAGE)
        assert "is not empty and holds no run" in capsys.readouterr().err

    def test_weights(self, gcs, local, lpips_weights, output, tmp_path):
        put(f"{output}.safetensors", Path(lpips_weights.path).read_bytes())
        options = ("--losses=lpips_vgg", "--chunk_pairs=10")
        run(local / "pairs.parquet", tmp_path / "run", *options)
        run(local / "pairs.parquet", output, *options, f"--weights={output}.safetensors")
        assert metrics(output) == metrics(tmp_path / "run")


class TestResume:
    def test_killed_run_resumes(self, gcs, local, output, tmp_path):
        """The killed run has credentials from a metadata server, as on Google's machines."""
        arguments = [f"--input={BUCKET}/in/pairs.parquet", f"--output={output}", *OPTIONS, "--chunk_pairs=1"]
        command = [sys.executable, "-m", "pipeline.run", *arguments]
        # After three chunks it keeps retrying until it is killed.
        stuck = Fault(f"PUT .*:{output.removeprefix(BUCKET)[1:]}/metrics/", 503, skip=3)
        with (
            gcs.refusing(stuck),
            subprocess.Popen(command, env=os.environ | gcs.on_google, stderr=subprocess.PIPE) as killed,
        ):
            deadline = time.monotonic() + 120
            while stuck.seen <= 3:
                assert killed.poll() is None, killed.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            killed.send_signal(signal.SIGKILL)
        done = set(list_files(f"{output}/metrics"))
        assert len(done) == 3
        begun = len(gcs.requests)
        assert main(arguments) == OK
        uploaded = {path for path in list_files(f"{output}/metrics") if was_uploaded(gcs, path, begun)}
        assert len(uploaded) == PAIRS - 3
        assert not uploaded & done
        run(local / "pairs.parquet", tmp_path / "run", "--chunk_pairs=1")
        assert metrics(output).drop_columns("source") == metrics(tmp_path / "run").drop_columns("source")
        assert not list(list_files(f"{output}/_temporary"))

    def test_second_run_ends_before_the_first(self, gcs, output, monkeypatch):
        """A launcher is killed, its job goes on, and a second run of the same command takes the directory."""
        write, written = run_files.create_file, []

        def second_run_before_the_third_chunk(path, content):
            written.extend([path] if "/metrics/" in path else [])
            if len(written) == 3 and path == written[-1]:
                run(pattern, output)
                assert "_SUCCESS" in names(output)
            write(path, content)

        pattern = f"{BUCKET}/in/pairs.parquet"
        monkeypatch.setattr(run_files, "create_file", second_run_before_the_third_chunk)
        run(pattern, output, expected=CRASH)
        assert len(metrics(output)) == PAIRS
        assert json.loads(get(f"{output}/run.json"))["counts"]["scored"] == PAIRS
        assert {name.partition("/")[0] for name in names(output)} == {"_SUCCESS", "metrics", "run.json", "summary.json"}

    def test_failed_upload_breaks_the_run_off(self, gcs, output, capsys):
        pattern = f"{BUCKET}/in/pairs.parquet"
        with gcs.refusing(Fault("PUT .*/metrics/", 403, skip=1)):
            run(pattern, output, expected=CRASH)
        assert f"{ACCOUNT} does not have" in capsys.readouterr().err
        listed, owner, written, record = names(output)
        assert (listed, owner, record) == ("_temporary/listed.json", "_temporary/owner.json", "run.json")
        assert written.startswith("metrics/")
        run(pattern, output)
        assert len(metrics(output)) == PAIRS


def was_uploaded(gcs: GcsServer, path: str, since: int) -> bool:
    part = f":{path.removeprefix('gs://').partition('/')[2]}:"
    return any(request.startswith("PUT ") and part in request for request in gcs.requests[since:])


class TestAudit:
    @pytest.fixture(scope="class")
    def finished(self, gcs) -> str:
        """A directory with two runs, `/one` and `/two`, and rules for them."""
        directory = f"{BUCKET}/audit"
        put(f"{directory}/rules.yaml", RULES.encode())
        run(f"{BUCKET}/in/pairs.parquet", f"{directory}/one")
        gate = (f"--gate={directory}/rules.yaml", f"--baseline={directory}/one")
        run(f"{BUCKET}/in/pairs.tfrecord", f"{directory}/two", *gate)
        return directory

    def test_gate_of_the_run(self, finished):
        verdict = json.loads(get(f"{finished}/two/verdict.json"))
        assert verdict["verdict"] == "pass"
        assert {result["rule"] for result in verdict["results"]} == {"pairs", "drift"}

    def test_gate(self, finished, capsys):
        arguments = ("gate", f"{finished}/one", f"--rules={finished}/rules.yaml", "--json")
        assert audit([*arguments, f"--baseline={finished}/two/summary.json"]) == OK
        assert get(f"{finished}/one/verdict.json").decode() == capsys.readouterr().out

    def test_propose(self, finished, capsys):
        assert audit(["propose", f"{finished}/one"]) == OK
        assert "rules:" in capsys.readouterr().out

    def test_report_with_pictures(self, finished):
        assert audit(["report", f"{finished}/one", f"--baseline={finished}/two"]) == OK
        page = get(f"{finished}/one/report.html").decode()
        assert page.count("data:image/") >= 3 * PAIRS
        assert f"{BUCKET}/in/pairs.parquet" in page

    def test_compare(self, finished, capsys):
        assert audit(["compare", f"{finished}/one", f"{finished}/two", f"--output={finished}/compare.html"]) == OK
        assert b"</html>" in get(f"{finished}/compare.html")

    def test_trend(self, finished):
        assert audit(["trend", f"{finished}/one", f"{finished}/two", f"--output={finished}/trend"]) == OK
        assert names(f"{finished}/trend") == ["trend.html", "trend.parquet"]

    def test_merge(self, finished):
        assert audit(["merge", f"{finished}/one", f"{finished}/two", f"--output={finished}/merged.json"]) == OK
        assert json.loads(get(f"{finished}/merged.json"))["losses"]["mae"]["count"] == 2 * PAIRS

    @pytest.mark.parametrize("path", ["gs://nowhere/run", f"{BUCKET}/in"])
    def test_no_run(self, gcs, capsys, path):
        assert audit(["report", path]) == USAGE
        assert f"{path} is not a run directory" in capsys.readouterr().err

    def test_forbidden(self, gcs, finished, capsys):
        for method, told in (("GET", "cannot read"), ("POST", "cannot write")):
            with gcs.refusing(Fault(method, 403)):
                assert audit(["report", f"{finished}/one"]) == USAGE
            error = capsys.readouterr().err
            assert error.count("\n") == 1
            assert f"{told} {finished}/one/" in error
            assert f"{ACCOUNT} does not have" in error
