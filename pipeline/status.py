"""Say how far a run is, from its directory alone: `pairloss status RUN`, on any machine that can read it.

Exit codes: 0 it is finished or at work; 1 it broke off, or nothing has been written for long; 2 there is no run.
"""

import operator
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.console.numbers import printable
from pipeline.console.performance import bottleneck, pairs_named
from pipeline.console.streams import guarded
from pipeline.errors import CRASH, OK, USAGE, UsageError
from pipeline.flags import Parser, path
from transforms.summary.performance import performance
from transforms.work import Work

if TYPE_CHECKING:
    from transforms.storage.run_record import RunRecord
    from transforms.storage.worker_files import Doing, WorkerReport

# The speed is an average over this time: chunks end minutes apart.
_SPEED_SECONDS = 600.0
# The listing of a large file takes that long.
_SILENT_SECONDS = 1800.0
# How many worker processes are shown, those first that have been silent longest.
_MOST_WORKERS = 10


@dataclass(frozen=True)
class Status:
    """How far a run is.

    Attributes:
        listed: all its pairs; 0 until that is known.
        done: pairs of the chunks that are done.
        chunks: how many these are.
        failed: how many of them have failures.
        speed: pairs per second of late; 0 if that is not known.
        last_written: when a chunk or a worker's report was written last, or the run began, in seconds since 1970.
        workers: the last report of each worker process of the last launcher; without any, the run has just begun.
        work: what all chunks have taken whose workers have reported since.
    """

    listed: int
    done: int
    chunks: int
    failed: int
    speed: float
    last_written: float
    workers: "Sequence[WorkerReport]" = ()
    work: Work = field(default=Work())

    def describe(self, now: float) -> list[str]:
        """Lines for people."""
        share = f" of {self.listed} ({self.done / self.listed:.0%})" if self.listed else "; the input is being listed"
        failures = f", {self.failed} of them with failures" if self.failed else ""
        lines = [f"{self.done} pairs done{share}, in {self.chunks} chunks{failures}"]
        if self.speed:
            left = f", {_duration((self.listed - self.done) / self.speed)} left" if self.listed else ""
            lines.append(f"{self.speed:.1f} pairs/s{left}")
        lines.append(f"last written {_duration(now - self.last_written)} ago")
        lines += _describe_workers(self.workers, now)
        return [*lines, *_describe_performance(performance(self.work))]


def _describe_workers(workers: "Sequence[WorkerReport]", now: float) -> Iterator[str]:
    """A line for each worker process: when it reported last, and what it was doing."""
    for worker in sorted(workers, key=lambda worker: worker.told)[:_MOST_WORKERS]:
        doing = "; ".join(_describe_thread(thread, worker.told) for thread in worker.doing)
        yield f"worker {printable(worker.process)}, {_duration(now - worker.told)} ago: {doing or 'between two chunks'}"
    if len(workers) > _MOST_WORKERS:
        yield f"and {len(workers) - _MOST_WORKERS} more workers"


def _describe_thread(thread: "Doing", told: float) -> str:
    pairs = f"{thread.pairs} pairs in {_duration(told - thread.since)}"
    return f"{printable(thread.stage.replace('_', ' '))}, {printable(thread.what)}, {pairs}"


def _describe_performance(record: Mapping[str, Any]) -> list[str]:
    """Lines on the stage that held the run up, if it is known, and on the pairs that stand out."""
    return [line for line in (bottleneck(record), *pairs_named(record)) if line]


def main(argv: Sequence[str]) -> int:
    """Print the status; return the exit code."""
    parser = Parser("pairloss status", __doc__ or "", "")
    parser.add_argument("run", type=path, help="the run's directory, local or in a store such as gs://")
    try:
        given = parser.parse_args(argv)
        # Beam takes seconds to import.
        from pipeline.credentials import check_credentials

        check_credentials([given.run])
        return _status(given.run)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE


def _status(output: str) -> int:
    from pipeline.audit.runs.files import read_record
    from transforms.storage.run_record import DELETING

    record = read_record(output)
    if record.status not in ("running", DELETING):
        counts = record.counts or {}
        print(f"{printable(record.status.replace('_', ' '))} after {_duration(record.seconds or 0)}")
        print(", ".join(f"{number} {printable(name.replace('_', ' '))}" for name, number in counts.items() if number))
        for line in _describe_performance(record.performance or {}):
            print(line)
        return OK
    now = time.time()
    status = read_status(output, record)
    print(*status.describe(now), sep="\n")
    if now - status.last_written > _SILENT_SECONDS:
        since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(status.last_written))
        print(f"it has probably broken off, at about {since}; the command that began it resumes it")
        return CRASH
    return OK


def read_status(output: str, record: "RunRecord") -> Status:
    """The status of a run at work, from the names and times of its chunks' files, and what its workers report.

    Args:
        output: its directory.
        record: the content of its run.json.

    Raises:
        READ_ERRORS: (of `storage.errors`) the directory cannot be listed.
    """
    from transforms.reading.format import pairs_of_file
    from transforms.storage.errors import READ_ERRORS
    from transforms.storage.json_files import read_json
    from transforms.storage.run_files import RunFiles, list_files, list_times
    from transforms.storage.worker_files import read_reports

    files = RunFiles(output)
    listed = 0
    # It is not there yet, or damaged.
    with suppress(*READ_ERRORS, ValueError, KeyError, TypeError):
        listed = operator.index(read_json(files.listed)["pairs"])
    written = [(pairs_of_file(path), changed) for path, changed in list_times(files.metrics_directory)]
    last = max((changed for _, changed in written), default=record.started)
    # Up to the last chunk: the next ones are at work, and their time is not over.
    begun = max(record.started, last - _SPEED_SECONDS)
    lately = sum(pairs for pairs, changed in written if changed > begun)
    reports = read_reports(files, record.fingerprint)
    return Status(
        listed=listed,
        done=sum(pairs for pairs, _ in written),
        chunks=len(written),
        failed=sum(1 for _ in list_files(files.failures_directory)),
        speed=lately / (last - begun) if last > begun else 0.0,
        last_written=max(last, record.started, *(report.told for report in reports)),
        workers=tuple(report for report in reports if report.claim == record.claim),
        work=sum((report.work for report in reports), Work()),
    )


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
