"""How far a run is: counted in this process, or seen from its directory where other processes work on it."""

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
# A look takes time, and money in a bucket: 40 000 chunks, 40 requests. Such long pauses between them keep both small.
_PAUSES_PER_LOOK = 20


@dataclass(frozen=True)
class Counts:
    """Numbers of pairs.

    Attributes:
        listed: all there are; 0 until that is known.
        done: scored or failed.
        failed: None where that cannot be seen.
    """

    listed: int = 0
    done: int = 0
    failed: int | None = None


Look = Callable[[], Counts]


@contextmanager
def counts_here() -> Iterator[Look]:
    """What the steps count in this process, from now on."""
    reset_in_process()
    yield _look_here


@contextmanager
def counts_of_directory(output: str) -> Iterator[Look]:
    """What the files of a run tell, whoever writes them: the chunks that are done, and how many pairs were listed."""
    watch = _Watch(RunFiles(output))
    watch.start()
    try:
        yield lambda: watch.counts
    finally:
        # It is not waited for: a bucket may take its time to answer.
        watch.stop.set()


def _look_here() -> Counts:
    counted = counted_in_process()
    return Counts(counted["pairs_listed"], counted["pairs_done"], counted["pairs_failed"])


class _Watch(threading.Thread):
    """Looks into the directory again and again."""

    def __init__(self, files: RunFiles):
        super().__init__(name="watch", daemon=True)
        self.files = files
        self.counts = Counts()
        self.stop = threading.Event()

    def run(self) -> None:
        pause = 0.0
        while not self.stop.wait(pause):
            started = time.monotonic()
            # A look that fails is no news: what is wrong with the directory, the run itself will tell.
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
