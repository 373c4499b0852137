"""The end of a run: nothing is lost unnoticed, and the mark of success comes last."""

import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from apache_beam.io.filesystems import FileSystems
from support.scored import columns_named

from transforms.storage.run_files import RunFiles
from transforms.storage.run_record import RunRecord
from transforms.storage.worker_files import WorkerReport, write_report
from transforms.summary.distribution import Distribution
from transforms.summary.finish import LostPairsError, finish_run
from transforms.summary.scored_pairs import ScoredPairs
from transforms.summary.summary import Summary
from transforms.summary.summary_file import SUMMARY_VERSION
from transforms.work import Work

(MAE,) = columns_named("mae")
PAIRS = ScoredPairs(2, columns={"mae": Distribution(MAE, zero=2, minimum=0.0, maximum=0.0)})
FINISHED = Summary(listed=9, failed=3, unread=4, failures=Counter(corrupt=3), precisions={"float32"}, pairs=PAIRS)
EMPTY = Summary.empty([MAE])
NOTHING = replace(EMPTY, listed=3, failed=3, failures=Counter(corrupt=3))


@pytest.fixture
def record():
    identity = {"losses": ["mae"], "input": ["a.parquet"]}
    return RunRecord(fingerprint="f", identity=identity, started=time.time() - 2)


@pytest.fixture(params=["run", "run[1]* x"])
def output(request, tmp_path):
    directory = tmp_path / request.param
    (directory / "_temporary").mkdir(parents=True)
    (directory / "_temporary" / "left by a killed worker").touch()
    return directory


def names(output: Path) -> list[str]:
    return sorted(path.name for path in output.iterdir())


@pytest.mark.parametrize(
    ("summary", "status", "mark"),
    [
        (FINISHED, "finished", ["_SUCCESS"]),
        (NOTHING, "nothing_scored", []),
        (EMPTY, "nothing_scored", []),
    ],
    ids=["finished", "nothing scored", "nothing read"],
)
def test_status(output, record, summary, status, mark):
    finish_run(summary, RunFiles(str(output)), record)
    assert names(output) == [*mark, "run.json", "summary.json"]
    run = json.loads((output / "run.json").read_text())
    assert run["status"] == status
    assert run["counts"] == summary.counts()
    assert run["precision"] == sorted(summary.precisions)
    assert 2 <= run["seconds"] < 60
    assert (run["fingerprint"], run["identity"]) == (record.fingerprint, record.identity)
    written = json.loads((output / "summary.json").read_text())
    assert (written.pop("version"), written.pop("computed")) == (SUMMARY_VERSION, {"losses": ["mae"]})
    assert written == summary.to_json()


def test_a_clock_that_was_set_back(output, record):
    """A time below 0 would make every reader refuse the run."""
    finish_run(FINISHED, RunFiles(str(output)), replace(record, started=record.started + 1e6))
    assert RunFiles(str(output)).read_record().seconds == 0


@pytest.mark.parametrize(
    ("reported", "pairs", "reading", "machines"),
    [
        # The worker has not reported its last chunks, which tell themselves.
        (10, 100, 4.0, (2, 20.0, 20.0)),
        # The engine tried chunks again that were done: they do not tell what they took, but the worker does.
        (40, 120, 3.0, (1, 15.0, 12.5)),
    ],
)
def test_what_all_launches_took(output, record, reported, pairs, reading, machines):
    files = RunFiles(str(output))
    for name, claim, done, begun in (("a", "killed", 30, 0), ("b", "killed", 50, 5), ("n", "ours", reported, 3)):
        spans = {f"m/{name}": (begun, begun + 10.0)}
        report = WorkerReport(
            "f", claim, f"m/{name}", 0.0, [], Work(done, {"waiting_for_reading": 1.0}, processes=spans)
        )
        write_report(files, report, name)
    write_report(files, WorkerReport("another run's", "x", "m/d", 0.0, [], Work(1000)), "d")
    ours = replace(FINISHED, work=Work(20, {"waiting_for_reading": 2.0, "network": 1.0}, processes={"n/1": (0.0, 5.0)}))
    finish_run(ours, files, replace(record, claim="ours", price_per_hour=0.36))
    run = json.loads((output / "run.json").read_text())["performance"]
    assert (run["pairs"], run["seconds"]["waiting_for_reading"], run["bound_by"]) == (pairs, reading, "reading")
    assert (run["workers"], run["worker_seconds"], run["cost_per_million_pairs"]) == machines
    assert names(output) == ["_SUCCESS", "run.json", "summary.json"]


def test_an_incomplete_run_hands_its_work_on(output, record):
    files = RunFiles(str(output))
    for claim, missing in (("first", {"a.parquet: gone": "unavailable"}), ("second", {})):
        part = replace(
            FINISHED,
            not_done=missing,
            work=Work(20, {"waiting_for_reading": 2.0}, processes={f"m/{claim}": (0.0, 1.0)}),
        )
        finish_run(part, files, replace(record, claim=claim))
    assert json.loads((output / "run.json").read_text())["performance"]["pairs"] == 40


def test_what_the_work_took_is_no_part_of_the_summary(output, record):
    contents = []
    for work in (Work(), Work(20, {"waiting_for_reading": 2.0}, slowest={"a": 1.0})):
        finish_run(replace(FINISHED, work=work), RunFiles(str(output)), record)
        contents.append((output / "summary.json").read_bytes())
    assert contents[0] == contents[1]


def test_lost_pairs_are_an_error(output, record):
    lost = replace(FINISHED, listed=10)
    with pytest.raises(LostPairsError, match="of 6 pairs read, 2 were scored and 3 failed"):
        finish_run(lost, RunFiles(str(output)), record)
    assert names(output) == ["_temporary"]


def test_success_comes_last(output, record, monkeypatch):
    """A run that breaks off anywhere before has no mark."""
    files, real = RunFiles(str(output)), FileSystems.create
    created = []

    def watch(path, *args, **options):
        created.append(path)
        if path == files.success:
            assert names(output) == ["run.json", "summary.json"]
        return real(path, *args, **options)

    monkeypatch.setattr(FileSystems, "create", watch)
    finish_run(FINISHED, files, record)
    assert created[-1] == files.success


def test_again(output, record):
    """An engine may run the step twice."""
    for _ in range(2):
        finish_run(FINISHED, RunFiles(str(output)), record)
    assert names(output) == ["_SUCCESS", "run.json", "summary.json"]
