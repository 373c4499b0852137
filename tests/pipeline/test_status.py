"""`pairloss status`: of runs that work, are finished, broke off or are none."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.errors import CRASH, OK, USAGE
from transforms.storage.run_files import RunFiles
from transforms.storage.run_record import DELETING, RunRecord
from transforms.storage.worker_files import Doing, WorkerReport, write_report
from transforms.summary.performance import performance
from transforms.work import Work

NOW = 1_000_000.0


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: NOW)


def make_run(
    output: Path, written: dict[float, int], listed: int | None = 1000, failed: int = 0, status: str = "running"
) -> Path:
    """A run that began an hour ago, with chunks of so many pairs, by how many seconds ago they were written."""
    for directory in ("metrics", "failures", "_temporary"):
        (output / directory).mkdir(parents=True)
    record = RunRecord(fingerprint="f", identity={}, started=NOW - 3600, claim="c", status=status)
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
        ({}, {"listed": None, "status": DELETING}, CRASH, ["0 pairs done; the input is being listed, in 0 chunks"]),
        ({}, {"listed": None}, CRASH, ["0 pairs done; the input is being listed, in 0 chunks"]),
        (
            {3600: 10, 2000: 90},
            {},
            CRASH,
            [
                "100 pairs done of 1000 (10%), in 2 chunks",
                "0.1 pairs/s, 1 h 40 min left",
                "last written 33 min 20 s ago",
                "it has probably broken off, at about 1970-01-12 13:13 UTC; the command that began it resumes it",
            ],
        ),
    ],
    ids=["at work", "deleting", "listing", "silent"],
)
def test_runs_that_are_not_finished(tmp_path, capsys, written, others, code, lines):
    assert main(["status", str(make_run(tmp_path / "run [1]", written, **others))]) == code
    told = capsys.readouterr().out.splitlines()
    assert told[: len(lines)] == lines


def report(claim: str = "c", ago: float = 20, number: int = 1, doing: bool = True) -> WorkerReport:
    """The report of a worker process, made that long ago, a minute after it had begun with a chunk."""
    work = Work(
        pairs=300,
        seconds={"waiting_for_reading": 10.0, "waiting_for_decoding": 71.0, "losses": 19.0},
        processes={f"m/{number}": (NOW - 150, NOW - 50)},
        slowest={"b\n": 1.5},
        largest={"a": 4_000_000},
    )
    now = NOW - ago
    thread = Doing("in-7", "network", now - 60, 12)
    return WorkerReport("f", claim, f"m/{number}", now, [thread] if doing else [], work)


class TestWorkers:
    def test_what_they_do(self, tmp_path, capsys):
        output = make_run(tmp_path, {300: 200})
        for number, (ago, doing) in enumerate([(20, True), (50, False)]):
            write_report(RunFiles(str(output)), report(ago=ago, number=number, doing=doing), str(number))
        assert main(["status", str(output)]) == OK
        assert capsys.readouterr().out.splitlines()[2:] == [
            "last written 20 s ago",
            "worker m/1, 50 s ago: between two chunks",
            "worker m/0, 20 s ago: network, in-7, 12 pairs in 1 min 0 s",
            "decoding-bound: 78.9 % of the time the losses waited for decoding, 6 pairs/s per worker",
            "slowest pairs: b\\n (1.50 s)",
            "largest pairs: a (4.00 megapixels)",
        ]

    def test_few_of_many(self, tmp_path, capsys):
        output = make_run(tmp_path, {})
        for number in range(12):
            write_report(RunFiles(str(output)), report(ago=number, number=number), str(number))
        assert main(["status", str(output)]) == OK
        told = capsys.readouterr().out
        assert told.count("\nworker ") == 10
        assert "worker m/11, 11 s ago" in told
        assert "and 2 more workers" in told

    def test_those_of_another_launcher_or_run_do_nothing(self, tmp_path, capsys):
        output = make_run(tmp_path, {})
        write_report(RunFiles(str(output)), report(claim="before", ago=3000), "before")
        write_report(RunFiles(str(output)), replace(report(), fingerprint="deleted"), "deleted")
        assert main(["status", str(output)]) == CRASH
        told = capsys.readouterr().out
        assert "\nworker " not in told
        # The work of the earlier launcher's workers is part of the run all the same.
        assert "3 pairs/s per worker" in told

    def test_of_a_dead_run(self, tmp_path, capsys):
        output = make_run(tmp_path, {3000: 10})
        write_report(RunFiles(str(output)), report(ago=2400), "a")
        assert main(["status", str(output)]) == CRASH
        told = capsys.readouterr().out
        assert "last written 40 min 0 s ago" in told
        assert "worker m/1, 40 min 0 s ago: network" in told
        assert "broken off, at about 1970-01-12 13:06 UTC" in told


@pytest.mark.parametrize("performance", [None, {"pairs": 0, "seconds": {}, "slowest": {}, "largest": {}}])
def test_a_finished_run_without_a_record_of_its_performance(tmp_path, capsys, performance):
    """As an earlier version has left it, or one that took over every pair."""
    record = RunRecord(fingerprint="f", identity={}, status="finished", seconds=2.0, counts={"read": 9})
    (tmp_path / "run.json").write_text(json.dumps(replace(record, performance=performance).to_json()))
    assert main(["status", str(tmp_path)]) == OK
    assert capsys.readouterr().out == "finished after 2 s\n9 read\n"


def test_a_finished_run(tmp_path, capsys):
    record = RunRecord(
        fingerprint="f",
        identity={},
        status="finished",
        seconds=75.2,
        counts={"read": 9, "scored": 8, "failed": 1},
        performance=performance(report().work, price_per_hour=0.36),
    )
    (tmp_path / "run.json").write_text(json.dumps(record.to_json()))
    assert main(["status", str(tmp_path)]) == OK
    assert capsys.readouterr().out.splitlines() == [
        "finished after 1 min 15 s",
        "9 read, 8 scored, 1 failed",
        "decoding-bound: 78.9 % of the time the losses waited for decoding, 3 pairs/s per worker, "
        "33.33 per million pairs",
        "slowest pairs: b\\n (1.50 s)",
        "largest pairs: a (4.00 megapixels)",
    ]


def test_no_run(tmp_path, capsys):
    assert main(["status", str(tmp_path)]) == USAGE
    assert "is not a run directory: there is no" in capsys.readouterr().err
