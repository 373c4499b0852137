"""Progress: a live line on a terminal, plain lines elsewhere, nothing when asked to be quiet."""

import json
import os
import pty
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa
import pytest
from support import shards

from pipeline.console import counts
from pipeline.console import progress as module
from pipeline.console.progress import progress
from transforms.reading.format import pairs_of_file
from transforms.reading.list_chunks import list_chunks
from transforms.schema import Chunk, Fields
from transforms.storage.run_files import RunFiles, list_files
from transforms.worker.counters import count, counted_in_process

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
# For waits that end as soon as what they wait for is there, even on a busy machine.
PATIENCE = 60.0


class Looks:
    """Stands in for the counts and the directory that the display looks at, to tell when it has looked."""

    def __init__(self) -> None:
        self.number = threading.Semaphore(0)

    def counted_in_process(self) -> Counter[str]:
        self.number.release()
        return counted_in_process()

    def list_files(self, directory: str) -> Iterator[str]:
        self.number.release()
        return list_files(directory)

    def wait(self, number: int = 10) -> None:
        """Until it has looked that many times more."""
        while self.number.acquire(blocking=False):
            pass
        for _ in range(number):
            assert self.number.acquire(timeout=PATIENCE)


@pytest.fixture(autouse=True)
def looks(monkeypatch) -> Looks:
    looks = Looks()
    monkeypatch.setattr(counts, "counted_in_process", looks.counted_in_process)
    monkeypatch.setattr(counts, "list_files", looks.list_files)
    monkeypatch.setattr(counts, "_LEAST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(counts, "_PAUSES_PER_LOOK", 1)
    for name in ("_LIVE_SECONDS", "_PLAIN_SECONDS"):
        monkeypatch.setattr(module, name, 0.02)
    # Variables that make rich take a pipe for a terminal, or a terminal for a pipe.
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return looks


def work() -> Iterator[None]:
    """Some of 12 pairs are done, and one has failed; a pause after each step."""
    yield
    count("pairs_listed", 12)
    yield
    count("pairs_done", 3)
    yield
    count("pairs_done", 2)
    count("pairs_failed")
    yield


@contextmanager
def standard_error_to(descriptor: int):
    kept = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def on_a_terminal(body: Callable[[Callable[[str], None]], None]) -> str:
    """The output of a terminal while the body runs, which is given a function that waits for a text to appear there."""
    ours, theirs = pty.openpty()
    chunks: list[bytes] = []

    def text() -> str:
        return b"".join(chunks).decode(errors="ignore")

    def wait_for(part: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while part not in ESCAPES.sub("", text()):
            assert time.monotonic() < deadline, part
            time.sleep(0.01)

    def read() -> None:
        while True:
            try:
                chunk = os.read(ours, 65536)
            # How Linux tells that the other end of a terminal is closed.
            except OSError:
                return
            if not chunk:
                return
            chunks.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    with standard_error_to(theirs):
        os.close(theirs)
        body(wait_for)
    reader.join()
    os.close(ours)
    return text()


class TestPlain:
    def test_lines(self, capfd, looks):
        with progress(quiet=False):
            for _ in work():
                looks.wait()
        captured = capfd.readouterr()
        assert captured.out == ""
        lines = captured.err.splitlines()
        assert lines[0] == "listing the pairs"
        assert "0 of 12 pairs, 0 failed" in lines
        assert "3 of 12 pairs, 0 failed" in lines
        line = re.compile(r"listing the pairs|\d+ of 12 pairs, \d failed(, [\d.]+ pairs/s, \d+ s left)?")
        assert all(line.fullmatch(one) for one in lines)
        assert any(re.match(r"5 of 12 pairs, 1 failed, [\d.]+ pairs/s, \d+ s left", line) for line in lines)
        assert "\x1b" not in captured.err
        assert "\r" not in captured.err

    def test_a_short_run_says_nothing(self, capfd, monkeypatch):
        monkeypatch.setattr(module, "_PLAIN_SECONDS", 600)
        started = time.monotonic()
        with progress(quiet=False):
            list(work())
        assert capfd.readouterr().err == ""
        # It does not sit out the ten minutes before the first line.
        assert time.monotonic() - started < 300


class TestLive:
    def test_one_line(self):
        shown = (("listing",), ("loading", "0/12", "0 failed"), ("scoring", "3/12"), ("5/12", "1 failed", "pairs/s"))

        def body(wait_for):
            with progress(quiet=False):
                for _, parts in zip(work(), shown, strict=True):
                    for part in parts:
                        wait_for(part)

        frames = re.split(r"[\r\n]+", ESCAPES.sub("", on_a_terminal(body)))
        assert any(re.search("scoring .* 5/12 .* pairs/s .* 1 failed", frame) for frame in frames)

    def test_leaves_nothing_behind(self):
        def body(wait_for):
            with progress(quiet=False):
                list(work())
            os.write(2, b"THE END")

        # The line is erased and the cursor is shown again before what comes next.
        text = on_a_terminal(body)
        assert text.endswith("THE END")
        last = text.removesuffix("THE END")
        assert "\x1b[2K" in last[-40:]
        assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


@pytest.mark.parametrize("quiet", [True, False])
class TestEither:
    def test_a_failure_of_the_run_comes_through(self, quiet, capfd):
        with pytest.raises(KeyError, match="broken"), progress(quiet):
            raise KeyError("broken")
        assert not [thread for thread in threading.enumerate() if "_show" in thread.name]

    def test_no_descriptor_leaks(self, quiet, capfd):
        before = len(os.listdir("/dev/fd"))
        for _ in range(3):
            with progress(quiet):
                pass
        assert len(os.listdir("/dev/fd")) == before


def test_counts_from_zero(capfd):
    count("pairs_done", 3)
    with progress(quiet=False):
        assert counted_in_process()["pairs_done"] == 0
        count("pairs_done")
    assert counted_in_process() == {"pairs_done": 1}


class TestOtherProcesses:
    """All that is seen of them are the files of the run."""

    @staticmethod
    def finish(directory, start: int, stop: int) -> None:
        files = RunFiles(str(directory))
        chunk = Chunk(f"pairs-0123abcd-{start:09d}-{stop:09d}", "pairs.parquet", "parquet", start, stop)
        files.write_whole(files.metrics(chunk), b"")

    @staticmethod
    def lines(directory, capfd, looks, *steps) -> list[str]:
        """The printed lines: an entry for each state after a step."""
        # Perhaps only a part of a line has arrived yet.
        printed = ""

        def wait_for_another_line() -> None:
            nonlocal printed
            # When the second look begins, the first has seen what the step did, and the third line from now shows it.
            looks.wait(2)
            printed += capfd.readouterr().err
            before = printed.count("\n")
            deadline = time.monotonic() + PATIENCE
            while printed.count("\n") < before + 3:
                assert time.monotonic() < deadline
                time.sleep(0.02)
                printed += capfd.readouterr().err

        with progress(quiet=False, directory=str(directory)):
            wait_for_another_line()
            for step in steps:
                step()
                wait_for_another_line()
        return list(
            dict.fromkeys(
                re.sub(r"[\d.]+ pairs/s, \d+ s", "S pairs/s, T s", line)
                for line in printed.splitlines()[: printed.count("\n")]
            )
        )

    def test_lines(self, tmp_path, capfd, looks):
        files = RunFiles(str(tmp_path))
        steps = (
            lambda: files.write_whole(files.listed, json.dumps({"pairs": 600}).encode()),
            lambda: self.finish(tmp_path, 0, 256),
            lambda: self.finish(tmp_path, 256, 500),
        )
        assert self.lines(tmp_path, capfd, looks, *steps) == [
            "listing the pairs",
            "0 of 600 pairs",
            "256 of 600 pairs",
            "500 of 600 pairs, S pairs/s, T s left",
        ]

    def test_no_total_is_made_up(self, tmp_path, capfd, looks):
        count("pairs_listed", 7)
        lines = self.lines(tmp_path, capfd, looks, lambda: self.finish(tmp_path, 0, 256))
        assert lines == ["listing the pairs", "256 pairs"]

    def test_a_look_that_fails_is_not_the_end(self, tmp_path, capfd, looks, monkeypatch):
        real = counts.list_files
        failed = threading.Event()

        def list_files(directory: str) -> Iterator[str]:
            if not failed.is_set():
                failed.set()
                raise OSError("the bucket does not answer")
            return real(directory)

        monkeypatch.setattr(counts, "list_files", list_files)
        self.finish(tmp_path, 0, 3)
        assert self.lines(tmp_path, capfd, looks)[-1] == "3 pairs"
        assert failed.is_set()

    def test_terminal(self, tmp_path):
        self.finish(tmp_path, 0, 3)

        def body(wait_for):
            with progress(quiet=False, directory=str(tmp_path)):
                wait_for("scoring")
                wait_for("3/?")

        assert "failed" not in on_a_terminal(body)

    def test_names_tell_the_pairs_of_chunks(self, tmp_path):
        rows = pa.table({"generated": [b"x"] * 11, "target": [b"x"] * 11})
        file = shards.write_parquet(tmp_path / "a-000000003-000000009.parquet", rows)
        chunks = [chunk for series in list_chunks(file, "auto", Fields(), chunk_pairs=4) for chunk in series]
        files = RunFiles("gs://bucket/run")
        assert [pairs_of_file(files.metrics(chunk)) for chunk in chunks] == [4, 4, 3]
        assert pairs_of_file("gs://bucket/run-000000001-000000009/metrics/notes.parquet") == 0


def test_quiet_prints_nothing(capfd):
    with progress(quiet=True):
        list(work())
    assert capfd.readouterr() == ("", "")


def test_quiet_prints_nothing_on_a_terminal():
    def body(wait_for):
        with progress(quiet=True):
            list(work())

    assert on_a_terminal(body) == ""
