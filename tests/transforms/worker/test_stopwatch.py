"""A stopwatch runs for one stage at a time; without one, the marks of stages do nothing."""

import threading
import time

import pytest

from transforms.work import Work
from transforms.worker import stopwatch as module
from transforms.worker.stopwatch import add_beside, lap, name_pairs, running, stopwatch, timed


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A clock that a test turns: `clock(3)` lets three seconds pass."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "time", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_laps_exclude_each_other(clock):
    with stopwatch("chunk", "other") as watch:
        clock(1)
        with lap("losses"):
            clock(2)
            with lap("network"):
                clock(4)
            clock(8)
        clock(16)
        assert [(each.what, each.stage) for each in running()] == [("chunk", "other")]
        add_beside("decoding", 32)
    work = watch.work(pairs=3, bytes_read=5)
    assert work.seconds == {"other": 17, "losses": 10, "network": 4, "decoding": 32}
    assert (work.pairs, work.bytes_read) == (3, 5)
    assert list(work.processes.values()) == [(100, 131)]
    assert work.peak_memory > 10_000_000
    assert running() == []


def test_a_lap_that_an_error_ends(clock):
    def fail() -> None:
        clock(2)
        raise OSError

    with stopwatch("chunk", "other") as watch:
        with pytest.raises(OSError), lap("losses"):  # noqa: PT011 (raised two lines above)
            fail()
        clock(1)
    assert watch.work().seconds == {"losses": 2, "other": 1}


def test_without_a_stopwatch(clock):
    with lap("losses"):
        add_beside("decoding", 1)
        name_pairs({"a": 1}, {"a": 1})
    assert running() == []


def test_threads_have_stopwatches_of_their_own(clock):
    def work() -> None:
        with lap("losses"):
            seen.append(len(running()))
        with stopwatch("theirs", "reading"):
            seen.append(len(running()))

    seen: list[int] = []
    with stopwatch("ours", "other") as watch:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert seen == [1, 2]
    assert watch.seconds.keys() == {"other"}


def test_one_within_another(clock):
    """A step of another run may start a run."""
    with stopwatch("outer", "writing") as outer:
        with stopwatch("inner", "other") as inner, lap("losses"):
            clock(1)
        with lap("reading"):
            clock(2)
    assert (inner.seconds["losses"], outer.seconds["reading"], "losses" in outer.seconds) == (1, 2, False)


def test_items_as_they_are_made(clock):
    def made():
        for number in (1, 2):
            clock(number)
            yield number

    found = []
    for item, watch in timed(made(), "file", "reading"):
        # The time that the taker of the items needs is not theirs.
        clock(50)
        found.append((item, watch.seconds["reading"], watch.what))
    assert found == [(1, 1, "file"), (2, 2, "file")]


def test_named_pairs_of_several_passes():
    with stopwatch("chunk", "other") as watch:
        name_pairs({"a": 1.0, "b": 2.0}, {"a": 9})
        name_pairs({"c": 1.5}, {"a": 9})
    assert watch.work().slowest == {"b": 2.0, "c": 1.5, "a": 1.0}
    assert watch.work().largest == {"a": 9}


def test_a_process_names_its_machine():
    assert Work(processes={module.process(): (0, 1)}).machines == 1
    assert module.process() == module.process()
