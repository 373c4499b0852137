"""How far a run is: counted in this process, or read from its directory if other processes do the work."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from transforms.reading.format import pairs_of_file
from transforms.storage.errors import READ_ERRORS
from transforms.storage.json_files import read_json
from transforms.storage.run_files import RunFiles, list_files
from transforms.worker.counters import counted_in_process, reset_in_process

_LEAST_PAUSE_SECONDS = 1.0
# A look takes time, and in a bucket it costs money: 40 requests for 40 000 chunks. Long pauses keep both low.
_PAUSES_PER_LOOK = 20


@dataclass(frozen=True)
class Counts:
    """Numbers of pairs.

    Attributes:
        listed: all pairs of the run; 0 until that is known.
        done: scored or failed pairs.
        failed: failed pairs; None if they cannot be counted.
    """

    listed: int = 0
    done: int = 0
    failed: int | None = None


Look = Callable[[], Counts]


@contextmanager
def counts_here() -> Iterator[Look]:
    """Look at the counters of this process, which start at zero."""
    reset_in_process()
    yield _look_here


@contextmanager
def counts_of_directory(output: str) -> Iterator[Look]:
    """Look at the files of a run: the chunks that are done, and the number of pairs that were listed."""
    watch = _Watch(RunFiles(output))
    watch.start()
    try:
        yield lambda: watch.counts
    finally:
        # Do not wait for it: a bucket may be slow to answer.
        watch.stop.set()


def _look_here() -> Counts:
    counted = counted_in_process()
    return Counts(counted["pairs_listed"], counted["pairs_done"], counted["pairs_failed"])


class _Watch(threading.Thread):
    """Looks into the directory from time to time."""

    def __init__(self, files: RunFiles):
        super().__init__(name="watch", daemon=True)
        self.files = files
        self.counts = Counts()
        self.stop = threading.Event()

    def run(self) -> None:
        pause = 0.0
        while not self.stop.wait(pause):
            started = time.monotonic()
            # A failed look changes nothing: if the directory is broken, the run itself reports it.
            with suppress(*READ_ERRORS):
                self.counts = self._look()
            pause = max(_LEAST_PAUSE_SECONDS, _PAUSES_PER_LOOK * (time.monotonic() - started))

    def _look(self) -> Counts:
        done = sum(map(pairs_of_file, list_files(self.files.metrics_directory)))
        listed = self.counts.listed
        if not listed:
            with suppress(*READ_ERRORS):
                listed = read_json(self.files.listed)["pairs"]
        return Counts(listed, done)
