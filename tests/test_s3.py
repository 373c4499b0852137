"""Runs and audits at `s3://`, with a local server that speaks S3's protocol; test_stores.py has its containers."""

import gc
import json
import os
import re
import sys
from pathlib import Path

import boto3
import pyarrow as pa
import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from botocore.exceptions import EndpointConnectionError, IncompleteReadError
from botocore.response import StreamingBody
from support import shards
from support.pictures import encode, noise, smooth
from support.s3_server import S3Server
from support.stores import Fault, get, names, put, refused, table

from pipeline.audit.__main__ import main as audit
from pipeline.cli import main as pairloss
from pipeline.run import CRASH, OK, USAGE, main
from transforms.losses.networks.weights_file import WeightsFile
from transforms.reading.input_files import files_below, look_up, match_files, open_input
from transforms.storage import s3 as s3_module
from transforms.storage.errors import READ_ERRORS, ChangedError, StoreError, describe
from transforms.storage.run_files import RunFiles, list_files

pytestmark = pytest.mark.heavy

PAIRS = 6
OPTIONS = ("--losses=mae", "--chunk_pairs=2", "--quiet")
RULES = "rules:\n  - {rule: pairs, min: 1}\n  - {rule: drift, column: mae, distance: ks, max: 0.5}\n"
BUCKET = "s3://pairs"


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Path:
    """A file of pairs."""
    path = tmp_path_factory.mktemp("local") / "pairs.parquet"
    pairs = [
        {"id": f"pair/{n}", "generated": encode(noise(n, 24, 32), "JPEG"), "target": encode(smooth(24, 32, n))}
        for n in range(PAIRS)
    ]
    shards.write_parquet(path, pa.Table.from_pylist(pairs))
    return path


@pytest.fixture(scope="module")
def s3(s3, local) -> S3Server:
    """The server, with the file in a bucket."""
    s3.create_bucket("pairs")
    put(f"{BUCKET}/in/pairs.parquet", local.read_bytes())
    return s3


@pytest.fixture
def output(s3, request) -> str:
    """A directory in the bucket that no other test uses."""
    return s3.directory("pairs", request.node.name)


def run(output: object, *arguments: str, expected: int = OK) -> None:
    given = (
        arguments if any(flag.startswith("--input") for flag in arguments) else (*arguments, f"--input={BUCKET}/in/*")
    )
    assert main([*given, f"--output={output}", *OPTIONS]) == expected


class TestRun:
    def test_a_second_run_is_refused_until_overwrite(self, s3, output, capsys):
        run(output, "--metrics_format=csv")
        found = {name.partition("/")[0] for name in names(output)}
        assert found == {"_SUCCESS", "metrics", "metrics_csv", "run.json", "summary.json"}
        run(output, expected=USAGE)
        assert "holds a finished run" in capsys.readouterr().err
        put(f"{output}/mine.txt", b"not of the run")
        run(output, "--overwrite")
        assert {name.partition("/")[0] for name in names(output)} == found - {"metrics_csv"} | {"mine.txt"}

    @pytest.mark.parametrize("chunk_pairs", [1, PAIRS])
    def test_requests_for_run_json_do_not_grow_with_the_chunks(self, s3, output, chunk_pairs):
        since = len(s3.requests)
        assert main([f"--input={BUCKET}/in/*", f"--output={output}", *OPTIONS, f"--chunk_pairs={chunk_pairs}"]) == OK
        asked = [request for request in s3.requests[since:] if re.match("GET .*/run.json", request)]
        # The input files, the record to end, and the result to print.
        assert len(asked) == 3

    def test_pack(self, s3, output):
        assert pairloss(["pack", f"--input={BUCKET}/in/*", f"--output={output}", "--shard_pairs=3", "--quiet"]) == OK
        assert names(output) == ["pairs-00000.parquet", "pairs-00001.parquet"]

    def test_weights(self, s3, output):
        put(f"{output}.safetensors", b"content")
        assert WeightsFile.at(f"{output}.safetensors").read() == b"content"

    def test_failed_upload_breaks_the_run_off_and_it_resumes(self, s3, output, capsys):
        with s3.refusing(Fault("PUT .*/metrics/", 403, skip=1)):
            run(output, expected=CRASH)
        error = capsys.readouterr().err
        assert "Access Denied (HTTP 403)" in error
        assert "AWS_ACCESS_KEY_ID" in error
        (done,) = list_files(f"{output}/metrics")
        written = look_up(done)
        begun = len(s3.requests)
        run(output)
        assert look_up(done) == written
        assert not any(request.startswith("PUT ") and done[5:] in request for request in s3.requests[begun:])
        assert len(table(f"{output}/metrics")) == PAIRS
        assert not list(list_files(f"{output}/_temporary"))


class TestAudit:
    @pytest.fixture(scope="class")
    def finished(self, s3) -> str:
        """A directory with two runs, `/one` and `/two`, and rules for them."""
        directory = f"{BUCKET}/audit"
        put(f"{directory}/rules.yaml", RULES.encode())
        run(f"{directory}/one")
        run(f"{directory}/two", f"--gate={directory}/rules.yaml", f"--baseline={directory}/one")
        return directory

    def test_gates(self, finished, capsys):
        assert json.loads(get(f"{finished}/two/verdict.json"))["verdict"] == "pass"
        arguments = ("gate", f"{finished}/one", f"--rules={finished}/rules.yaml", "--json")
        capsys.readouterr()
        assert audit([*arguments, f"--baseline={finished}/two/summary.json"]) == OK
        assert get(f"{finished}/one/verdict.json").decode() == capsys.readouterr().out

    def test_propose_and_report(self, finished, capsys):
        assert audit(["propose", f"{finished}/one"]) == OK
        assert "rules:" in capsys.readouterr().out
        assert audit(["report", f"{finished}/one", f"--baseline={finished}/two"]) == OK
        assert get(f"{finished}/one/report.html").decode().count("data:image/") >= 3 * PAIRS

    def test_compare_trend_and_merge(self, finished):
        runs = (f"{finished}/one", f"{finished}/two")
        assert audit(["compare", *runs, f"--output={finished}/compare.html"]) == OK
        assert audit(["trend", *runs, f"--output={finished}/trend"]) == OK
        assert audit(["merge", *runs, f"--output={finished}/merged.json"]) == OK
        assert b"</html>" in get(f"{finished}/compare.html")
        assert names(f"{finished}/trend") == ["trend.html", "trend.parquet"]
        assert json.loads(get(f"{finished}/merged.json"))["losses"]["mae"]["count"] == 2 * PAIRS

    @pytest.mark.parametrize("path", ["s3://nowhere/run", f"{BUCKET}/in"])
    def test_no_run(self, s3, capsys, path):
        assert audit(["report", path]) == USAGE
        assert f"{path} is not a run directory" in capsys.readouterr().err


class TestRefusedAtLaunch:
    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["--input=s3://nowhere/*"], ["input 's3://nowhere/*'", "404", "check the bucket's name"]),
            (["--input=s3://pairs/in/no*"], ["input 's3://pairs/in/no*' matches no file"]),
            (["--input=s3://pairs/in/a.parquet"], ["input 's3://pairs/in/a.parquet' matches no file"]),
            (["--input=s3://pairs/in"], ["'s3://pairs/in' is a directory", "s3://pairs/in/*.parquet"]),
            (["--input=s3://"], ["input 's3://'"]),
            (["--output=s3://nowhere/run"], ["--output=s3://nowhere/run", "check the bucket's name"]),
            (["--weights=s3://pairs/in/w"], ["weights at s3://pairs/in/w: no such object"]),
            (["--weights=s3://pairs/in/pairs.parquet"], ["s3://pairs/in/pairs.parquet has SHA-256", "not used"]),
            (["--gate=s3://pairs/in/rules.yaml"], ["s3://pairs/in/rules.yaml", "no such object"]),
        ],
        ids=lambda value: value[0] if value[0].startswith("--") else "",
    )
    def test_what_is_not_there(self, s3, local, tmp_path, capsys, arguments, told):
        given = [f"--input={local}"] if "--input" not in arguments[0] else []
        error = refused(capsys, *given, f"--output={tmp_path}/run", *arguments, "--losses=lpips_vgg")
        assert all(part in error for part in told), error
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("flag", "fault"),
        [
            ("--input=s3://pairs/in/*", "GET /pairs"),
            ("--output=s3://pairs/forbidden", "GET /pairs"),
            ("--output=s3://pairs/read-only", "PUT /pairs"),
            ("--weights=s3://pairs/in/pairs.parquet", "HEAD /pairs"),
        ],
    )
    def test_what_is_forbidden(self, s3, local, tmp_path, capsys, flag, fault):
        given = [f"--input={local}"] if "--input" not in flag else []
        with s3.refusing(Fault(fault, 403)):
            error = refused(capsys, *given, f"--output={tmp_path}/run", flag, "--losses=lpips_vgg")
        assert flag.partition("=")[2] in error
        assert "HTTP 403" in error
        assert "sign in with an account that may use the bucket: AWS_PROFILE, or AWS_ACCESS_KEY_ID" in error


class TestClient:
    @pytest.fixture
    def without_credentials(self, s3, monkeypatch):
        for name, value in s3.without_credentials.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("AWS_PROFILE")
        s3_module._new_client.cache_clear()
        yield
        s3_module._new_client.cache_clear()

    @pytest.mark.usefixtures("without_credentials")
    def test_only_a_public_object_needs_no_credentials(self, s3, local, tmp_path):
        owner = boto3.client("s3", aws_access_key_id="tester", aws_secret_access_key="secret")
        owner.put_object(Bucket="pairs", Key="public.parquet", Body=local.read_bytes(), ACL="public-read")
        run(tmp_path / "run", f"--input={BUCKET}/public.parquet")
        with pytest.raises(StoreError, match="HTTP 403"):
            look_up(f"{BUCKET}/in/pairs.parquet")

    @pytest.mark.usefixtures("without_credentials")
    def test_beams_flags(self, s3, monkeypatch):
        monkeypatch.delenv("AWS_ENDPOINT_URL")
        flags = [f"--s3_endpoint_url={s3.url}", "--s3_access_key_id=a", "--s3_secret_access_key=b"]
        monkeypatch.setattr(FileSystems, "_pipeline_options", PipelineOptions([*flags, "--s3_region_name=us-east-1"]))
        assert len(match_files([f"{BUCKET}/in/*"])) == 1

    def test_the_extra_that_is_missing_is_named(self, s3, local, tmp_path, monkeypatch, capsys):
        monkeypatch.setitem(sys.modules, "boto3.exceptions", None)
        for flag in ("--input=s3://b/*", "--output=s3://b/run", "--weights=s3://b/w", "--gate=s3://b/rules.yaml"):
            given = [f"--input={local}"] if "--input" not in flag else []
            error = refused(capsys, *given, f"--output={tmp_path}/run", flag, "--losses=lpips_vgg")
            assert "install pairloss[aws]" in error, flag
        assert audit(["report", "s3://b/run"]) == USAGE
        assert "install pairloss[aws]" in capsys.readouterr().err


class TestObjects:
    OLD, NEW = b"old" * 1000, os.urandom(17 << 20)  # boto3 uploads parts of 8 MiB

    @pytest.mark.parametrize("before", [None, OLD], ids=["new", "replaced"])
    @pytest.mark.parametrize("request_", ["PUT .*partNumber=2", "POST .*uploads", "POST .*uploadId"])
    def test_upload_that_fails_changes_nothing(self, s3, output, before, request_):
        files = RunFiles(output)
        if before:
            put(files.report, before)
        with s3.refusing(Fault(request_, 403)), pytest.raises(StoreError, match="Access Denied"):
            files.write_whole(files.report, self.NEW)
        assert (get(files.report) if FileSystems.exists(files.report) else None) == before
        begun = len(s3.requests)
        gc.collect()
        assert s3.requests[begun:] == []

    def test_upload_that_fails_once_is_tried_again(self, s3, output):
        with s3.refusing(Fault("PUT .*partNumber=2", 500, times=1)):
            RunFiles(output).write_whole(f"{output}/large", self.NEW)
        assert get(f"{output}/large") == self.NEW

    @pytest.mark.parametrize("content", [b"", b"content"])
    def test_a_file_is_one_upload(self, s3, output, content):
        """Without a temporary name, no copy and no deletion can fail."""
        begun = len(s3.requests)
        RunFiles(output).write_whole(f"{output}/file", content)
        assert [request.partition(" ")[0] for request in s3.requests[begun:]] == ["PUT"]
        assert get(f"{output}/file") == content

    def test_a_block_left_by_an_error_makes_no_object(self, s3, output):
        def break_off():
            with FileSystems.create(f"{output}/file") as file:
                file.write(b"half")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            break_off()
        assert names(output) == []

    def test_a_listing_and_the_object_itself_tell_the_same_version(self, s3, output):
        put(f"{output}/a", b"content")
        (listed,) = match_files([f"{output}/*"])
        (below,) = files_below(f"{output}/", None)
        versions = {file.version for file in (listed, below, look_up(f"{output}/a"))}
        assert len(versions) == 1
        assert versions.pop().startswith("7 bytes with the ETag ")

    def test_an_object_that_is_replaced(self, s3, output):
        """Even within a second, by as many bytes."""
        put(f"{output}/a", b"content")
        version = look_up(f"{output}/a").version
        with open_input(f"{output}/a", version) as file:
            put(f"{output}/a", b"CONTENT")
            with pytest.raises(READ_ERRORS) as caught:
                file.read()
        assert "replaced while it was read" in describe(caught.value)
        with pytest.raises(ChangedError):
            open_input(f"{output}/a", version)

    def test_a_connection_that_breaks_is_made_again(self, s3, output, monkeypatch):
        put(f"{output}/a", b"content")
        real, left = StreamingBody.read, [2]

        def read(body, amt=None):
            left[0] -= 1
            if left[0] >= 0:
                raise IncompleteReadError(actual_bytes=1, expected_bytes=7)
            return real(body, amt)

        monkeypatch.setattr(StreamingBody, "read", read)
        assert get(f"{output}/a") == b"content"
        left[0] = 3
        with pytest.raises(StoreError, match="1 read, but total bytes expected is 7"):
            get(f"{output}/a")

    @pytest.fixture
    def outage(self, s3, monkeypatch) -> list[int]:
        """How many of the next requests for an object's metadata find no store, in a list."""
        left, client = [0], s3_module._client(None)
        ask = client.head_object

        def head_object(**kwargs):
            left[0] -= 1
            if left[0] >= 0:
                raise EndpointConnectionError(endpoint_url="http://nowhere")
            return ask(**kwargs)

        monkeypatch.setattr(client, "head_object", head_object)
        monkeypatch.setattr(s3_module, "_RETRY", s3_module._RETRY.with_delay(initial=0.001, maximum=0.001))
        return left

    def test_a_store_that_has_answered_is_waited_for(self, output, outage):
        put(f"{output}/a", b"content")
        outage[0] = 7
        assert FileSystems.exists(f"{output}/a")
        assert outage[0] < 0

    def test_a_store_that_never_answered_is_not_waited_for(self, output, outage):
        s3_module._answered.clear()
        outage[0] = 7
        with pytest.raises(StoreError, match='Could not connect to the endpoint URL: "http://nowhere"'):
            FileSystems.exists(f"{output}/a")
        assert outage[0] == 6

    def test_no_store_is_waited_for_without_end(self, output, outage, monkeypatch):
        put(f"{output}/a", b"content")
        monkeypatch.setattr(s3_module, "_RETRY", s3_module._RETRY.with_timeout(0.01))
        outage[0] = 10**6
        with pytest.raises(StoreError, match='Could not connect to the endpoint URL: "http://nowhere"'):
            FileSystems.exists(f"{output}/a")

    def test_reads_ranges(self, s3, output):
        put(f"{output}/large", self.NEW)
        with open_input(f"{output}/large") as file:
            file.seek(9 << 20)
            assert file.read(100) == self.NEW[9 << 20 :][:100]
            file.seek(-5, os.SEEK_END)
            assert file.read() == self.NEW[-5:]
            file.seek(0)
            assert file.read() == self.NEW
