"""`pairloss status`: of runs that work, are finished, broke off or are none."""

import json
import os
import time
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.errors import CRASH, OK, USAGE
from transforms.storage.run_record import RunRecord

NOW = 1_000_000.0


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: NOW)


def make_run(output: Path, written: dict[float, int], listed: int | None = 1000, failed: int = 0) -> Path:
    """A run that began an hour ago, with chunks of so many pairs, by how many seconds ago they were written."""
    for directory in ("metrics", "failures", "_temporary"):
        (output / directory).mkdir(parents=True)
    record = RunRecord(fingerprint="f", identity={}, started=NOW - 3600)
    (output / "run.json").write_text(json.dumps(record.to_json()))
    if listed is not None:
        (output / "_temporary" / "listed.json").write_text(json.dumps({"pairs": listed}))
    start = 0
    for ago, pairs in written.items():
        chunk = f"in-0123abcd-{start:09d}-{start + pairs:09d}"
        start += pairs
        path = output / "metrics" / f"{chunk}.parquet"
        path.touch()
        os.utime(path, (NOW - ago, NOW - ago))
        if failed:
            failed -= 1
            (output / "failures" / f"{chunk}.jsonl").touch()
    return output


@pytest.mark.parametrize(
    ("written", "others", "code", "lines"),
    [
        (
            {3000: 100, 300: 200, 10: 100},
            {"failed": 1},
            OK,
            [
                "400 pairs done of 1000 (40%), in 3 chunks, 1 of them with failures",
                "0.5 pairs/s, 20 min 0 s left",
                "last written 10 s ago",
            ],
        ),
        ({}, {"listed": None}, CRASH, ["0 pairs done; the input is being listed, in 0 chunks"]),
        (
            {3600: 10, 2000: 90},
            {},
            CRASH,
            [
                "100 pairs done of 1000 (10%), in 2 chunks",
                "0.1 pairs/s, 1 h 40 min left",
                "last written 33 min 20 s ago",
                "it has probably broken off; the command that began it resumes it",
            ],
        ),
    ],
    ids=["at work", "listing", "silent"],
)
def test_runs_that_are_not_finished(tmp_path, capsys, written, others, code, lines):
    assert main(["status", str(make_run(tmp_path / "run [1]", written, **others))]) == code
    told = capsys.readouterr().out.splitlines()
    assert told[: len(lines)] == lines


def test_a_finished_run(tmp_path, capsys):
    record = RunRecord(
        fingerprint="f", identity={}, status="finished", seconds=75.2, counts={"read": 9, "scored": 8, "failed": 1}
    )
    (tmp_path / "run.json").write_text(json.dumps(record.to_json()))
    assert main(["status", str(tmp_path)]) == OK
    assert capsys.readouterr().out == "finished after 1 min 15 s\n9 read, 8 scored, 1 failed\n"


def test_no_run(tmp_path, capsys):
    assert main(["status", str(tmp_path)]) == USAGE
    assert "holds no run" in capsys.readouterr().err
