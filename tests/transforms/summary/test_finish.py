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
from transforms.summary.distribution import Distribution
from transforms.summary.finish import LostPairsError, finish_run
from transforms.summary.scored_pairs import ScoredPairs
from transforms.summary.summary import Summary
from transforms.summary.summary_file import SUMMARY_VERSION

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
