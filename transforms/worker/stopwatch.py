"""Measure on a worker how long a thread spends in each stage of its work, by `transforms.work.STAGES`.

A step starts a stopwatch for the thread that does its work, and the code below marks its stages with `lap`. Without a
stopwatch, as in notebooks, the marks do nothing.
"""

import os
import socket
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from transforms.work import Work, most
from transforms.worker.memory import peak_memory

T = TypeVar("T")

# The stopwatches that run in this process, by thread.
_running: dict[int, "Stopwatch"] = {}
# A machine may give a process the number of one that has ended.
_NUMBER = uuid.uuid4().hex[:6]


class Stopwatch:
    """Runs for one stage at a time, so that the seconds of all stages are those that have passed.

    Args:
        what: the chunk or file that is worked on.
        stage: the first stage.

    Attributes:
        what: as given.
        stage: the stage it runs for.
        begun, ended: when it was started and stopped, in seconds since 1970.
        pairs: of the chunk that are scored or have failed.
        seconds: by stage, without those since the stage began.
        slowest, largest: as those of `Work`.
    """

    def __init__(self, what: str, stage: str):
        self.what, self.stage = what, stage
        self.begun = self.ended = time.time()
        self.pairs = 0
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.slowest: Mapping[str, float] = {}
        self.largest: Mapping[str, int] = {}
        self._since = time.perf_counter()

    def switch(self, stage: str) -> str:
        """Go on with another stage; return the one that ended."""
        now, ended = time.perf_counter(), self.stage
        self.seconds[ended] += now - self._since
        self._since, self.stage = now, stage
        return ended

    def work(self, pairs: int = 0, bytes_read: int = 0) -> Work:
        """The work that was measured until the watch was stopped."""
        spans = {process(): (self.begun, self.ended)}
        return Work(pairs, dict(self.seconds), bytes_read, peak_memory(), spans, self.slowest, self.largest)


@contextmanager
def stopwatch(what: str, stage: str) -> Iterator[Stopwatch]:
    """Measure what this thread does in the block."""
    thread = threading.get_ident()
    # A local engine may run another run in this thread, in the middle of a step.
    outer = _running.get(thread)
    watch = _running[thread] = Stopwatch(what, stage)
    try:
        yield watch
    finally:
        if outer is None:
            del _running[thread]
        else:
            _running[thread] = outer
        watch.switch(stage)
        watch.ended = time.time()


def timed(items: Iterator[T], what: str, stage: str) -> Iterator[tuple[T, Stopwatch]]:
    """Yield items, each with a stopwatch that has run while it was made."""
    while True:
        with stopwatch(what, stage) as watch:
            try:
                item = next(items)
            except StopIteration:
                return
        yield item, watch


@contextmanager
def lap(stage: str) -> Iterator[None]:
    """Count the time of this thread in the block for a stage, except for the laps within."""
    watch = _running.get(threading.get_ident())
    if watch is None:
        yield
        return
    outer = watch.switch(stage)
    try:
        yield
    finally:
        watch.switch(outer)


def add_beside(stage: str, seconds: float) -> None:
    """Add what other threads spent on the work of this one."""
    if watch := _running.get(threading.get_ident()):
        watch.seconds[stage] += seconds


def name_pairs(slowest: Mapping[str, float], largest: Mapping[str, int]) -> None:
    """Say how long pairs of this thread's chunk took, and how many pixels they have, by key."""
    if watch := _running.get(threading.get_ident()):
        watch.slowest = most({**slowest, **watch.slowest})
        watch.largest = most({**largest, **watch.largest})


def running() -> list[Stopwatch]:
    """The stopwatches that run in this process, one for each thread at work."""
    return list(_running.values())


def process() -> str:
    """The name of this process: its machine, and its number there."""
    return f"{socket.gethostname()}/{os.getpid()}-{_NUMBER}"
