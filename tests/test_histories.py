"""Whatever has happened to a run before, it ends in the rows of a run from nothing, or is refused.

A random history of runs that are fresh, take over earlier ones, try failures again, overwrite, or are killed wherever
they write a file, while the input changes. test_faults.py kills real processes.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.io.filesystems import FileSystems
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from support import shards
from support.pictures import encode, noise, smooth

from pipeline.errors import OK, USAGE
from pipeline.run import main

FILES = ("a", "b")
OPTIONS = ("--losses=mae,psnr", "--quiet", "--sandbox=false", "--chunk_pairs=2")
# A record of each file is larger than this.
LIMIT = "--max_image_bytes=500"

# Rows by id, and reasons of failures by id.
Result = tuple[dict[str, dict[str, object]], dict[str, str]]


class Killed(BaseException):
    """A process that is killed runs no handlers of exceptions. Ours do not catch this one; Beam's only ends the job."""


@cache
def shard(name: str, seed: int) -> pa.Table:
    """The records of a file: good ones, one that is broken, and one that a limit refuses."""
    generated = [noise(seed + number, 9, 9) for number in range(5)]
    contents = [*map(encode, generated[:3]), b"broken", encode(noise(seed, 40, 40))]
    targets = [encode(smooth(*((40, 40) if number == 4 else (9, 9)), number)) for number in range(5)]
    rows = zip(contents, targets, strict=True)
    return pa.Table.from_pylist(
        [{"id": f"{name}{n}", "generated": ours, "target": theirs} for n, (ours, theirs) in enumerate(rows)]
    )


def result(output: Path) -> Result:
    """The rows and failures of a finished run by id, without where the pairs lie."""
    rows = pq.read_table(output / "metrics").drop_columns("source").to_pylist()
    lines = [line for path in (output / "failures").glob("*") for line in path.read_text().splitlines()]
    failures = [json.loads(line) for line in lines]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}, {failure["id"]: failure["reason"] for failure in failures}


@cache
def of_fresh_run(name: str, seed: int, limited: bool) -> Result:
    """The `result` of a run of one file from nothing."""
    with tempfile.TemporaryDirectory() as directory:
        path = shards.write_parquet(Path(directory) / f"{name}.parquet", shard(name, seed))
        flags = (f"--input={path.path}", f"--output={directory}/run", *OPTIONS, *([LIMIT] if limited else []))
        assert main(flags) == OK
        return result(Path(directory) / "run")


@dataclass(frozen=True)
class Request:
    """A run's input and limit.

    Attributes:
        files: the seed of each input file, and when it was written.
        limited: whether `LIMIT` was given.
    """

    files: tuple[tuple[str, int, int], ...]
    limited: bool


@dataclass(frozen=True)
class Run:
    """A directory of a run: what was asked for, and whether it is finished."""

    output: Path
    request: Request
    finished: bool


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.inputs = self.root / "in"
        self.inputs.mkdir()
        self.files: dict[str, tuple[int, int]] = {}
        self.runs: list[Run] = []
        self.clock = 0

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @initialize()
    def begin(self) -> None:
        for name in FILES:
            self.change(name, seed=0)

    @rule(name=st.sampled_from(FILES), seed=st.integers(0, 1))
    def change(self, name: str, seed: int) -> None:
        """Write a file, perhaps the same content once more; a version of it counts as another one all the same."""
        self.clock += 1
        for path in self.write(shard(name, 100 * seed), name):
            os.utime(path, (self.clock, self.clock))
        self.files[name] = 100 * seed, self.clock

    @precondition(lambda self: len(self.files) > 1)
    @rule()
    def remove(self) -> None:
        name, _ = self.files.popitem()
        for path in self.inputs.rglob(f"{name}*.*"):
            path.unlink()

    def write(self, records: pa.Table, name: str) -> list[Path]:
        """Write the files that hold these records."""
        return [Path(shards.write_parquet(self.inputs / f"{name}.parquet", records).path)]

    def given(self) -> list[str]:
        """The flags that name the input."""
        return [f"--input={self.inputs}/*.parquet"]

    @rule(limited=st.booleans(), kill=st.none() | st.integers(1, 12))
    def fresh(self, limited: bool, kill: int | None) -> None:
        self.start(Run(self.root / str(len(self.runs)), self.request(limited), False), kill)

    @precondition(lambda self: any(run.finished for run in self.runs))
    @rule(limited=st.booleans(), retry=st.booleans(), kill=st.none() | st.integers(1, 12), data=st.data())
    def reuse(self, limited: bool, retry: bool, kill: int | None, data: st.DataObject) -> None:
        earlier = data.draw(st.sampled_from([run for run in self.runs if run.finished]))
        flags = [f"--reuse={earlier.output}"]
        # Scored pairs stay, even if the new limit would refuse them.
        if retry and (earlier.request.limited or not limited):
            flags.append("--retry_failures=all")
        self.start(Run(self.root / str(len(self.runs)), self.request(limited), False), kill, *flags)

    @precondition(lambda self: self.runs)
    @rule(limited=st.booleans(), kill=st.none() | st.integers(1, 12), data=st.data())
    def overwrite(self, limited: bool, kill: int | None, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(self.runs))
        self.runs.remove(run)
        self.start(replace(run, request=self.request(limited), finished=False), kill, "--overwrite")

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """The same command resumes a run unless its input has changed, and is refused where the run is finished."""
        run = data.draw(st.sampled_from(self.runs))
        if run.finished or run.request != self.request(run.request.limited):
            before = sorted(path for path in run.output.rglob("*"))
            assert self.main(run) == USAGE
            assert sorted(path for path in run.output.rglob("*")) == before
        else:
            self.runs.remove(run)
            self.start(run, None)

    @precondition(lambda self: any(run.finished for run in self.runs))
    @rule(which=st.integers(0, 5), cut=st.booleans(), data=st.data())
    def damage(self, which: int, cut: bool, data: st.DataObject) -> None:
        """Leave a run as a failure of power does: without its end, and with a chunk that is cut or gone."""
        run = data.draw(st.sampled_from([run for run in self.runs if run.finished]))
        (run.output / "_SUCCESS").unlink()
        chunks = sorted((run.output / "metrics").iterdir())
        chunk = chunks[which % len(chunks)]
        if cut:
            chunk.write_bytes(chunk.read_bytes()[:50])
        else:
            chunk.unlink()
        self.runs[self.runs.index(run)] = replace(run, finished=False)

    def request(self, limited: bool) -> Request:
        return Request(tuple(sorted((name, *version) for name, version in self.files.items())), limited)

    def main(self, run: Run, *flags: str) -> int:
        limit = [LIMIT] if run.request.limited else []
        return main([*self.given(), f"--output={run.output}", *OPTIONS, *limit, *flags])

    def start(self, run: Run, kill: int | None, *flags: str) -> None:
        """Start a run, kill it after it has written so many files, and check what it says if it was not."""
        with suppress(Killed), KilledAfter(kill) as killed:
            code = self.main(run, *flags)
        self.runs.append(replace(run, finished=killed.left != 0))
        if killed.left == 0:
            return
        assert code == OK
        assert (run.output / "_SUCCESS").exists()
        assert not (run.output / "_temporary").exists()
        parts = [of_fresh_run(name, seed, run.request.limited) for name, seed, _ in run.request.files]
        expected = tuple({key: value for part in parts for key, value in part[side].items()} for side in (0, 1))
        assert result(run.output) == expected
        counts = json.loads((run.output / "run.json").read_text())["counts"]
        assert (counts["scored"], counts["failed"]) == tuple(map(len, expected))


class FolderHistories(Histories):
    """The same with the images in two folders, where each pair is reused by itself."""

    def write(self, records: pa.Table, name: str) -> list[Path]:
        written = []
        for row in records.to_pylist():
            for side in ("generated", "target"):
                written.append(self.inputs / side / f"{row['id']}.png")
                shards.write(written[-1], row[side])
        return written

    def given(self) -> list[str]:
        return [f"--{side}={self.inputs}/{side}" for side in ("generated", "target")]


class KilledAfter:
    """In the block, the process is killed when so many files have been given their names, if any number is given."""

    def __init__(self, files: int | None):
        self.left = files
        self.rename: Callable[..., object] = FileSystems.rename

    def __enter__(self) -> Self:
        if self.left:
            FileSystems.rename = self.count
        return self

    def __exit__(self, *_: object) -> None:
        FileSystems.rename = self.rename

    def count(self, sources: list[str], targets: list[str]) -> None:
        assert self.left is not None
        self.rename(sources, targets)
        self.left -= 1
        if not self.left:
            raise Killed


SETTINGS = settings(
    max_examples=10,
    stateful_step_count=8,
    deadline=None,
    derandomize=True,
    database=None,
    # Shrinking runs for minutes, and a history is short.
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)

TestHistories = pytest.mark.slow(Histories.TestCase)
TestHistories.settings = SETTINGS
TestFolderHistories = pytest.mark.slow(FolderHistories.TestCase)
TestFolderHistories.settings = SETTINGS
