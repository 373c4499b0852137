"""Progress: a live line on a terminal, plain lines elsewhere, nothing when asked to be quiet."""

import os
import pty
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipeline import progress as module
from pipeline.progress import progress
from transforms.counters import count, counted_in_process

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Looks:
    """Stands in for the counts that the display looks at, to tell when it has looked."""

    def __init__(self) -> None:
        self.number = threading.Semaphore(0)

    def __call__(self) -> Counter[str]:
        self.number.release()
        return counted_in_process()

    def wait(self, number: int = 10) -> None:
        """Until it has looked so many times more."""
        while self.number.acquire(blocking=False):
            pass
        for _ in range(number):
            assert self.number.acquire(timeout=10)


@pytest.fixture(autouse=True)
def looks(monkeypatch) -> Looks:
    looks = Looks()
    monkeypatch.setattr(module, "counted_in_process", looks)
    for name in ("_LIVE_SECONDS", "_PLAIN_SECONDS"):
        monkeypatch.setattr(module, name, 0.02)
    # What makes rich take a pipe for a terminal, or a terminal for none.
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
    count("pairs_done", 5)
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


def on_a_terminal(body) -> str:
    """What a terminal gets while the body runs."""
    ours, theirs = pty.openpty()
    chunks: list[bytes] = []

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
        body()
    reader.join()
    os.close(ours)
    return b"".join(chunks).decode()


class TestPlain:
    def test_lines(self, capfd, looks):
        with progress(quiet=False):
            for _ in work():
                looks.wait()
        captured = capfd.readouterr()
        assert captured.out == ""
        lines = captured.err.splitlines()
        assert "0 of 12 pairs, 0 failed" in lines
        line = re.compile(r"\d+ of \d+ pairs, \d failed(, [\d.]+ pairs/s, \d+ s left)?")
        assert all(line.fullmatch(one) for one in lines)
        assert any(re.match(r"5 of 12 pairs, 1 failed, [\d.]+ pairs/s", line) for line in lines)
        assert "\x1b" not in captured.err
        assert "\r" not in captured.err

    def test_a_short_run_says_nothing(self, capfd, monkeypatch):
        monkeypatch.setattr(module, "_PLAIN_SECONDS", 60)
        started = time.monotonic()
        with progress(quiet=False):
            list(work())
        assert capfd.readouterr().err == ""
        assert time.monotonic() - started < 5


class TestLive:
    def test_one_line(self, looks):
        def body():
            with progress(quiet=False):
                for _ in work():
                    looks.wait(20)

        text = ESCAPES.sub("", on_a_terminal(body))
        frames = [frame for frame in re.split(r"[\r\n]+", text) if frame.strip()]
        for part in ("listing", "loading", "scoring", "0/12", "5/12", "0 failed", "1 failed", "pairs/s"):
            assert any(part in frame for frame in frames), part

    def test_leaves_nothing_behind(self):
        def body():
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

    def test_counts_from_zero(self, quiet, capfd):
        count("pairs_done", 3)
        with progress(quiet):
            assert counted_in_process()["pairs_done"] == 0
            count("pairs_done")
        assert counted_in_process() == {"pairs_done": 1}

    def test_no_descriptor_leaks(self, quiet, capfd):
        before = len(os.listdir("/dev/fd"))
        for _ in range(3):
            with progress(quiet):
                pass
        assert len(os.listdir("/dev/fd")) == before


def test_quiet_prints_nothing(capfd):
    with progress(quiet=True):
        list(work())
    assert capfd.readouterr() == ("", "")


def test_quiet_prints_nothing_on_a_terminal():
    def body():
        with progress(quiet=True):
            list(work())

    assert on_a_terminal(body) == ""
