"""Errors at `gs://`: failed uploads, missing or forbidden objects, missing credentials."""

import gc
import os
import subprocess
import sys

import fsspec.config
import pyarrow as pa
import pytest
from apache_beam.internal.gcp import auth
from apache_beam.io.filesystems import FileSystems
from google.api_core.exceptions import GoogleAPIError
from requests import Session
from support import shards
from support.gcs_server import ACCOUNT
from support.pictures import encode, noise
from support.stores import Fault, get, names, put, refused

from pipeline.run import OK, USAGE, main
from transforms.storage import run_files
from transforms.storage.run_files import RunFiles

pytestmark = pytest.mark.heavy

BUCKET = "gs://pairs"


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> str:
    """The path of a file with one pair."""
    path = tmp_path_factory.mktemp("input") / "pairs.parquet"
    shards.write_parquet(
        path, pa.Table.from_pylist([{"generated": encode(noise(0, 9, 9)), "target": encode(noise(1, 9, 9))}])
    )
    return str(path)


@pytest.fixture(scope="module")
def gcs(gcs, local):
    """The server, with the file in a bucket."""
    gcs.create_bucket("pairs")
    with open(local, "rb") as file:
        put(f"{BUCKET}/in/pairs.parquet", file.read())
    return gcs


@pytest.fixture
def output(gcs, request) -> str:
    """A directory in the bucket that no other test uses."""
    return gcs.directory("pairs", request.node.name)


class TestWriteWhole:
    """A failed upload raises and leaves everything as it was: nothing, or the whole older content."""

    OLD, NEW = b"old" * 1000, os.urandom(33 << 20)  # three requests of 16 MiB at most

    @pytest.fixture
    def files(self, output) -> RunFiles:
        return RunFiles(output)

    @pytest.fixture
    def impatient(self, monkeypatch):
        """Shorten the two minutes for which requests are tried again."""
        monkeypatch.setattr(run_files, "UPLOAD_RETRY", run_files.UPLOAD_RETRY.with_timeout(0.1))

    @pytest.mark.parametrize("before", [None, OLD], ids=["new", "replaced"])
    @pytest.mark.parametrize(
        ("status", "passed"), [(403, 0), (403, 1), (403, 2), (403, 3), (429, 3), (503, 0), (503, 2)]
    )
    def test_upload_that_fails(self, gcs, files, impatient, before, status, passed):
        if before:
            put(files.report, before)
        with gcs.refusing(Fault("(POST|PUT) /upload", status, skip=passed)), pytest.raises(GoogleAPIError):
            files.write_whole(files.report, self.NEW)
        assert (get(files.report) if FileSystems.exists(files.report) else None) == before

    @pytest.mark.parametrize("passed", [0, 1], ids=["begin", "end"])
    def test_nothing_is_tried_again_later(self, gcs, files, impatient, passed):
        """A file that is still open would upload when it is garbage-collected."""
        with gcs.refusing(Fault("(POST|PUT) /upload", 503, skip=passed)), pytest.raises(GoogleAPIError):
            files.write_whole(files.report, b"content")
        begun = len(gcs.requests)
        gc.collect()
        # google-cloud-storage 3 asks where the bucket is, for its traces, and may do so late.
        assert [request for request in gcs.requests[begun:] if not request.startswith("GET ")] == []
        assert names(files.output) == []

    @pytest.mark.parametrize(("status", "passed"), [(429, 0), (503, 0), (503, 1), (429, 3)])
    def test_upload_that_fails_once_is_tried_again(self, gcs, files, status, passed):
        with gcs.refusing(Fault("(POST|PUT) /upload", status, times=1, skip=passed)):
            files.write_whole(files.report, self.NEW)
        assert get(files.report) == self.NEW

    def test_nothing_but_the_upload(self, gcs, files):
        """Without a temporary name, no copy and no deletion can fail."""
        begun = len(gcs.requests)
        files.write_whole(files.report, b"content")
        # Beside it, google-cloud-storage 3 asks where the bucket is, for its traces.
        methods = [request.partition(" ")[0] for request in gcs.requests[begun:]]
        assert [method for method in methods if method != "GET"] == ["POST", "PUT"]
        assert names(files.output) == ["report.html"]

    def test_empty_file(self, files):
        files.write_whole(files.success, b"")
        assert get(files.success) == b""

    def test_killed_in_the_middle(self, gcs, files, monkeypatch):
        """The uploaded part does not become an object."""
        send = Session.request

        def break_off(*arguments, **options):
            if arguments[1] == "PUT":
                raise KeyboardInterrupt
            return send(*arguments, **options)

        monkeypatch.setattr(Session, "request", break_off)
        with pytest.raises(KeyboardInterrupt):
            files.write_whole(files.report, self.NEW)
        monkeypatch.undo()
        gc.collect()
        assert names(files.output) == []


class TestRefusedAtLaunch:
    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["--input=gs://nowhere/*"], ["input 'gs://nowhere/*'", "404", "check the bucket's name"]),
            (["--input=gs://nowhere/a.parquet"], ["input 'gs://nowhere/a.parquet'", "404"]),
            (["--input=gs://pairs/in/no*"], ["input 'gs://pairs/in/no*' matches no file"]),
            (["--input=gs://pairs/in/a.parquet"], ["input 'gs://pairs/in/a.parquet' matches no file"]),
            (["--input=gs://pairs/in"], ["'gs://pairs/in' is a directory", "gs://pairs/in/*.parquet"]),
            (["--output=gs://nowhere/run"], ["--output=gs://nowhere/run", "404", "check the bucket's name"]),
            (["--weights=gs://nowhere/w"], ["weights at gs://nowhere/w: there is no such file"]),
            (["--weights=gs://pairs/in/w"], ["weights at gs://pairs/in/w: there is no such file"]),
            (["--weights=gs://pairs/in/pairs.parquet"], ["gs://pairs/in/pairs.parquet has SHA-256", "not used"]),
            (["--gate=gs://pairs/in/rules.yaml"], ["gs://pairs/in/rules.yaml"]),
        ],
        ids=lambda value: value[0] if value[0].startswith("--") else "",
    )
    def test_what_is_not_there(self, gcs, local, tmp_path, capsys, arguments, told):
        given = [f"--input={local}"] if "--input" not in arguments[0] else []
        error = refused(capsys, *given, f"--output={tmp_path}/run", *arguments, "--losses=lpips_vgg")
        assert all(part in error for part in told), error
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("fault", "arguments", "told"),
        [
            ("GET .*/b/pairs/o", ["--input=gs://pairs/in/*"], "input 'gs://pairs/in/*'"),
            ("GET .*/b/pairs/o", ["--input=gs://pairs/in/pairs.parquet"], "input 'gs://pairs/in/pairs.parquet'"),
            ("GET .*/b/pairs/o", ["--output=gs://pairs/forbidden"], "--output=gs://pairs/forbidden"),
            ("POST /upload", ["--output=gs://pairs/read-only"], "--output=gs://pairs/read-only"),
            ("GET .*/b/pairs/o", ["--weights=gs://pairs/in/pairs.parquet"], "weights at gs://pairs/in/pairs.parquet"),
        ],
        ids=["pattern", "file", "output", "read-only output", "weights"],
    )
    def test_what_is_forbidden(self, gcs, local, tmp_path, capsys, fault, arguments, told):
        given = [f"--input={local}"] if "--input" not in arguments[0] else []
        with gcs.refusing(Fault(fault, 403)):
            error = refused(capsys, *given, f"--output={tmp_path}/run", *arguments, "--losses=lpips_vgg")
        assert told in error
        assert f"{ACCOUNT} does not have storage.objects access" in error
        if "weights" not in told:
            assert "roles/storage.objectUser" in error

    def test_credentials_that_have_ended(self, gcs, local, output, capsys):
        with gcs.refusing(Fault("", 401)):
            error = refused(capsys, f"--input={local}", f"--output={output}", "--losses=mae")
        assert f"--output={output}" in error
        assert "gcloud auth application-default login" in error


class TestWithoutCredentials:
    @staticmethod
    def refused(environment: dict[str, str], *arguments: str) -> str:
        """Assert that a process ends with one line of error, and return it."""
        command = [sys.executable, "-m", *arguments]
        # Were it to wait for credentials that do not exist, Beam would try again for two minutes.
        done = subprocess.run(
            command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=110
        )
        assert (done.returncode, done.stderr.count("\n")) == (USAGE, 1)
        return done.stderr

    @pytest.mark.parametrize("network", [True, False], ids=["network", "no network"])
    def test_private_bucket(self, gcs, tmp_path, network):
        environment = gcs.without_credentials | ({} if network else {"STORAGE_EMULATOR_HOST": ""})
        arguments = (f"--input={BUCKET}/in/*", f"--output={tmp_path}/run", "--losses=mae")
        error = self.refused(environment, "pipeline.run", *arguments)
        assert f"error: cannot use {BUCKET}/in/*: this machine has no Google credentials" in error
        assert ("it is not public" in error) == network
        assert "gcloud auth application-default login" in error

    def test_audit(self, gcs):
        arguments = ("gate", f"{BUCKET}/run", "--rules=rules.yaml")
        error = self.refused(gcs.without_credentials, "pipeline.audit", *arguments)
        assert f"error: cannot use {BUCKET}/run: this machine has no Google credentials" in error

    def test_public_bucket(self, gcs, tmp_path, monkeypatch, capfd):
        monkeypatch.setattr(gcs, "anonymous", True)
        for name, value in gcs.without_credentials.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(auth._Credentials, "_credentials", None)
        monkeypatch.setattr(auth._Credentials, "_credentials_init", False)
        # Otherwise gcsfs would stay anonymous for the tests to come.
        monkeypatch.setitem(fsspec.config.conf, "gcs", {})
        arguments = (f"--input={BUCKET}/in/pairs.parquet", f"--output={tmp_path}/run", "--losses=mae", "--quiet")
        assert (main(arguments), capfd.readouterr().err) == (OK, "")
        assert (tmp_path / "run" / "_SUCCESS").exists()

    def test_key_file_that_is_not_there(self, gcs, tmp_path, capsys, monkeypatch):
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", f"{tmp_path}/key.json")
        error = refused(capsys, f"--input={BUCKET}/in/*", f"--output={tmp_path}/run", "--losses=mae")
        assert f"cannot use GOOGLE_APPLICATION_CREDENTIALS={tmp_path}/key.json" in error
