"""Reports of worker processes: written seldom, whatever the number of chunks, and read by whoever watches."""

import os
import time

import pytest

from transforms.storage import worker_files
from transforms.storage.json_files import to_json
from transforms.storage.run_files import RunFiles
from transforms.storage.run_record import RunRecord
from transforms.storage.worker_files import WorkerFile, read_reports, worker_file
from transforms.work import Work
from transforms.worker.stopwatch import stopwatch

NOW = 1_000.0


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test turns."""
    now = [NOW]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


@pytest.fixture
def files(tmp_path) -> RunFiles:
    """The files of a run whose directory its launcher has claimed."""
    files = RunFiles(str(tmp_path / "run [1]"))
    claim(files, "c")
    return files


def claim(files: RunFiles, launcher: str) -> None:
    files.write_whole(files.config, to_json(RunRecord(fingerprint="f", identity={}, claim=launcher).to_json()))


def names(files: RunFiles) -> list[str]:
    return sorted(os.listdir(files.workers_directory)) if os.path.isdir(files.workers_directory) else []


def test_a_short_run_writes_none(files, clock):
    worker = WorkerFile(files, "f", "c")
    for _ in range(100):
        clock(0.29)
        worker.add(Work(pairs=1))
    assert names(files) == []
    assert read_reports(files, "f") == []


def test_a_report(files, clock):
    worker = WorkerFile(files, "f", "c")
    worker.add(Work(pairs=3, seconds={"reading": 0.5}))
    clock(31)
    with stopwatch("in-0", "network") as watch:
        watch.pairs = 2
        worker.tell()
    (report,) = read_reports(files, "f")
    assert (report.fingerprint, report.claim, report.work) == ("f", "c", Work(pairs=3, seconds={"reading": 0.5}))
    assert [(thread.what, thread.stage, thread.pairs) for thread in report.doing] == [("in-0", "network", 2)]
    assert abs(report.told - time.time()) < 60
    assert read_reports(files, "another run's") == []


def test_it_is_replaced_now_and_then(files, clock, monkeypatch):
    written = []
    write = worker_files.write_report
    monkeypatch.setattr(worker_files, "write_report", lambda *args: written.append(args[1].work.pairs) or write(*args))
    worker = WorkerFile(files, "f", "c")
    for _ in range(100):
        clock(1)
        worker.add(Work(pairs=1))
    assert written == [30, 60, 90]
    assert len(names(files)) == 1


def test_a_slow_store_is_asked_less_often(files, clock, monkeypatch):
    written = []
    monkeypatch.setattr(worker_files, "write_report", lambda *args: written.append(1) or clock(2))
    worker = WorkerFile(files, "f", "c")
    for _ in range(500):
        clock(1)
        worker.add(Work(pairs=1))
    assert len(written) == 3


def test_a_directory_that_another_launcher_has_taken_is_left_alone(files, clock):
    worker = WorkerFile(files, "f", "c")
    claim(files, "another")
    clock(31)
    worker.add(Work(pairs=1))
    assert names(files) == []


def test_a_directory_that_cannot_be_written_to_costs_nothing(files, clock):
    with open(files.workers_directory, "w") as file:
        file.write("in the way")
    worker = WorkerFile(files, "f", "c")
    clock(31)
    worker.add(Work(pairs=1))
    assert os.path.isfile(files.workers_directory)


def test_a_process_has_one_file_for_a_run(files):
    assert worker_file(files, "f", "c") is worker_file(RunFiles(files.output), "f", "c")
    assert worker_file(files, "f", "c") is not worker_file(files, "f", "of another launcher")
