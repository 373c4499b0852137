"""A worker process tells in a small file of the run's directory what it does and has done, every half minute at most.

`pairloss status` reads these files. If a launcher is killed, the one that resumes the run finds in them what the work
before it has taken.
"""

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from threading import Lock
from typing import Any

from apache_beam.io.filesystems import FileSystems

from transforms.storage.errors import READ_ERRORS
from transforms.storage.json_files import read_json
from transforms.storage.run_files import ForeignDirectoryError, RunFiles, list_files
from transforms.work import Work
from transforms.worker.stopwatch import process, running

# A file in a store costs money each time that it is written, and the work waits meanwhile. The longer it takes, the
# longer the pause.
_LEAST_PAUSE_SECONDS = 30.0
_PAUSES_PER_WRITE = 100
# Most of the time of asking an object store is waiting.
_THREADS = 16


@dataclass(frozen=True)
class Doing:
    """The present work of a thread of a worker process.

    Attributes:
        what: the chunk or file.
        stage: of `transforms.work.STAGES`.
        since: when it began with the chunk or file, in seconds since 1970.
        pairs: of the chunk that are scored or have failed.
    """

    what: str
    stage: str
    since: float
    pairs: int


@dataclass(frozen=True)
class WorkerReport:
    """The report of a worker process.

    Attributes:
        fingerprint: of the run that it works for.
        claim: of the launcher that it works for.
        process: its machine and number, as in `Work.processes`.
        told: when it told this, in seconds since 1970.
        doing: what it does, by thread.
        work: what its chunks have taken that are written.
    """

    fingerprint: str
    claim: str
    process: str
    told: float
    doing: Sequence[Doing]
    work: Work

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "WorkerReport":
        """Read back what `to_json` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            doing = tuple(Doing(**thread) for thread in data["doing"])
            report = cls(**{**data, "doing": doing, "work": Work.from_json(data["work"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"it is not the report of a worker: {error}") from error
        texts = [report.fingerprint, report.claim, report.process]
        texts += [text for thread in doing for text in (thread.what, thread.stage)]
        numbers = [report.told, *(number for thread in doing for number in (thread.since, thread.pairs))]
        if not all(isinstance(text, str) for text in texts) or not all(isinstance(n, (int, float)) for n in numbers):
            raise ValueError("it is not the report of a worker: a value of it has another type")
        return report


class WorkerFile:
    """The file of this process in the directory of a run. Its methods are safe to call from many threads.

    Args:
        files: of the run.
        fingerprint: of the run.
        claim: of its launcher.
    """

    def __init__(self, files: RunFiles, fingerprint: str, claim: str):
        self._files, self._fingerprint, self._claim = files, fingerprint, claim
        self._name = uuid.uuid4().hex
        self._work = Work()
        self._next = time.monotonic() + _LEAST_PAUSE_SECONDS
        self._lock, self._writing = Lock(), Lock()

    def add(self, work: Work) -> None:
        """Add what a chunk has taken that is written."""
        with self._lock:
            self._work += work
        self.tell()

    def tell(self) -> None:
        """Write the file, unless that was done lately or another thread is doing it."""
        if time.monotonic() < self._next or not self._writing.acquire(blocking=False):
            return
        begun = time.monotonic()
        try:
            # The file is for those who watch. If the directory is broken or another run's, the next chunk reports it.
            with suppress(*READ_ERRORS, ForeignDirectoryError):
                self._files.check_owner(self._fingerprint, self._claim)
                write_report(self._files, self._report(), self._name)
        finally:
            ended = time.monotonic()
            self._next = ended + max(_LEAST_PAUSE_SECONDS, _PAUSES_PER_WRITE * (ended - begun))
            self._writing.release()

    def _report(self) -> WorkerReport:
        doing = [Doing(watch.what, watch.stage, watch.begun, watch.pairs) for watch in running()]
        with self._lock:
            return WorkerReport(self._fingerprint, self._claim, process(), time.time(), doing, self._work)


@lru_cache(maxsize=8)
def worker_file(files: RunFiles, fingerprint: str, claim: str) -> WorkerFile:
    """The file of this process in the directory of a run; its threads share it."""
    return WorkerFile(files, fingerprint, claim)


def write_report(files: RunFiles, report: WorkerReport, name: str) -> None:
    """Write what a worker process tells to the file of this name.

    Raises:
        READ_ERRORS: (of `storage.errors`) it could not be written.
    """
    path = FileSystems.join(files.workers_directory, f"{name}.json")
    files.write_whole(path, json.dumps(report.to_json()).encode())


def read_reports(files: RunFiles, fingerprint: str) -> list[WorkerReport]:
    """The reports of the worker processes of a run, those of earlier launchers too.

    Raises:
        READ_ERRORS: (of `storage.errors`) the directory cannot be listed.
    """
    paths = list(list_files(files.workers_directory))
    with ThreadPoolExecutor(_THREADS, "read_report") as pool:
        found = [report for reports in pool.map(_read, paths) for report in reports]
    # A worker that has not noticed that its run was deleted may have written another one.
    return [report for report in found if report.fingerprint == fingerprint]


def _read(path: str) -> list[WorkerReport]:
    try:
        return [WorkerReport.from_json(read_json(path))]
    except (*READ_ERRORS, ValueError):
        # Since it was listed, the run has ended and deleted it; or it is damaged, and whoever watches can do without.
        return []
