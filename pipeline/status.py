"""Say how far a run is, from its directory alone: `pairloss status RUN`, on any machine that can read it.

Exit codes: 0 it is finished or at work; 1 it broke off, or nothing has been written for long; 2 there is no run.
"""

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from pipeline.errors import CRASH, OK, USAGE, UsageError
from pipeline.flags import Parser

# The speed is an average over this time: chunks end minutes apart.
_SPEED_SECONDS = 600.0
# A chunk of hard descents takes that long on a CPU.
_SILENT_SECONDS = 1800.0


@dataclass(frozen=True)
class Status:
    """How far a run is.

    Attributes:
        listed: all its pairs; 0 until that is known.
        done: pairs of the chunks that are done.
        chunks: how many these are.
        failed: how many of them have failures.
        speed: pairs per second of late; 0 if that is not known.
        last_written: when the last chunk was written, or the run began, in seconds since 1970.
    """

    listed: int
    done: int
    chunks: int
    failed: int
    speed: float
    last_written: float

    def describe(self, now: float) -> list[str]:
        """Lines for people."""
        share = f" of {self.listed} ({self.done / self.listed:.0%})" if self.listed else "; the input is being listed"
        failures = f", {self.failed} of them with failures" if self.failed else ""
        lines = [f"{self.done} pairs done{share}, in {self.chunks} chunks{failures}"]
        if self.speed:
            left = f", {_duration((self.listed - self.done) / self.speed)} left" if self.listed else ""
            lines.append(f"{self.speed:.1f} pairs/s{left}")
        lines.append(f"last written {_duration(now - self.last_written)} ago")
        return lines


def main(argv: Sequence[str]) -> int:
    """Print the status; return the exit code."""
    parser = Parser("pairloss status", __doc__ or "", "")
    parser.add_argument("run", help="the run's directory, local or in a store such as gs://")
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
    from transforms.storage.errors import READ_ERRORS, describe
    from transforms.storage.json_files import read_json
    from transforms.storage.run_files import RunFiles
    from transforms.storage.run_record import RunRecord

    try:
        record = RunRecord.from_json(read_json(RunFiles(output).config))
    except (*READ_ERRORS, ValueError) as error:
        raise UsageError(f"{output} holds no run: {describe(error)}; name the directory of --output") from error
    if record.status != "running":
        counts = record.counts or {}
        print(f"{record.status.replace('_', ' ')} after {_duration(record.seconds or 0)}")
        print(", ".join(f"{number} {name.replace('_', ' ')}" for name, number in counts.items() if number))
        return OK
    now = time.time()
    status = read_status(output, record.started)
    print(*status.describe(now), sep="\n")
    if now - status.last_written > _SILENT_SECONDS:
        print("it has probably broken off; the command that began it resumes it")
        return CRASH
    return OK


def read_status(output: str, started: float) -> Status:
    """The status of a run at work, from the names and times of its chunks' files.

    Args:
        output: its directory.
        started: when it was launched, in seconds since 1970.

    Raises:
        READ_ERRORS: (of `storage.errors`) the directory cannot be listed.
    """
    from transforms.reading.format import pairs_of_file
    from transforms.storage.errors import READ_ERRORS
    from transforms.storage.json_files import read_json
    from transforms.storage.run_files import RunFiles, list_files, list_times

    files = RunFiles(output)
    listed = 0
    with suppress(*READ_ERRORS):
        listed = read_json(files.listed)["pairs"]
    written = [(pairs_of_file(path), changed) for path, changed in list_times(files.metrics_directory)]
    last = max((changed for _, changed in written), default=started)
    # Up to the last chunk: the next ones are at work, and their time is not over.
    begun = max(started, last - _SPEED_SECONDS)
    lately = sum(pairs for pairs, changed in written if changed > begun)
    return Status(
        listed=listed,
        done=sum(pairs for pairs, _ in written),
        chunks=len(written),
        failed=sum(1 for _ in list_files(files.failures_directory)),
        speed=lately / (last - begun) if last > begun else 0.0,
        last_written=last,
    )


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
