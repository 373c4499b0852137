"""The run's directory: its owner."""

import json

import pytest

from transforms.storage.run_files import ForeignDirectoryError, RunFiles
from transforms.storage.run_record import RunRecord


def test_its_own(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"fingerprint": "f", "identity": {}, "claim": "c"}))
    RunFiles(str(tmp_path)).check_owner("f", "c")


def test_the_same_run_of_another_launcher(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"fingerprint": "f", "identity": {}, "claim": "another"}))
    with pytest.raises(ForeignDirectoryError, match="another launcher of the same run has taken"):
        RunFiles(str(tmp_path)).check_owner("f", "c")


def test_run_json_is_not_read_while_the_run_is_at_work(tmp_path):
    run = RunFiles(str(tmp_path))
    run.write_record(RunRecord(fingerprint="f", claim="c", identity={"input": []}))
    (tmp_path / "run.json").unlink()
    run.check_owner("f", "c")
    with pytest.raises(ForeignDirectoryError, match="another launcher of the same run has taken"):
        run.check_owner("f", "another")


def test_run_json_tells_the_owner_of_a_run_that_has_ended(tmp_path):
    run = RunFiles(str(tmp_path))
    run.write_record(RunRecord(fingerprint="f", claim="c", identity={}))
    run.delete_temporaries()
    run.check_owner("f", "c")


def test_another_run(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"fingerprint": "another", "identity": {}}))
    with pytest.raises(ForeignDirectoryError, match="another run, with other settings or inputs, has taken"):
        RunFiles(str(tmp_path)).check_owner("f")


def test_a_worker_that_does_not_see_the_launchers_directory(tmp_path):
    with pytest.raises(ForeignDirectoryError, match=r"cannot read .*elsewhere/run.json.* that all workers share"):
        RunFiles(str(tmp_path / "elsewhere")).check_owner("f")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff"])
def test_something_else_in_its_place(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(ForeignDirectoryError, match="cannot read"):
        RunFiles(str(tmp_path)).check_owner("f")
