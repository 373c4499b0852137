"""A run whose process is killed, as by the kernel, when it has finished some chunks."""

import signal
import subprocess
import sys
from pathlib import Path

# It kills itself: from outside, a fast machine would be done before anybody has looked.
_RUN = """
import os, signal, sys
from apache_beam.io.filesystems import FileSystems
from pipeline.run import main

rename, left = FileSystems.rename, int(sys.argv[1])

def rename_and_count(sources, targets):
    global left
    rename(sources, targets)
    left -= sum("/metrics/" in target for target in targets)
    if left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)

FileSystems.rename = rename_and_count
main(sys.argv[2:])
"""


def kill_after(chunks: int, output: Path, *arguments: str) -> dict[str, int]:
    """Start the run of the arguments, which write to `output`, on the local engine, and kill it after so many chunks.

    Returns:
        the chunks it has finished, as `finished_chunks` tells them.
    """
    command = [sys.executable, "-c", _RUN, str(chunks), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    finished = finished_chunks(output)
    assert len(finished) == chunks
    assert not (output / "_SUCCESS").exists()
    return finished


def finished_chunks(output: Path) -> dict[str, int]:
    """The time at which each chunk of the run was finished, in nanoseconds, by the name of its file."""
    return {path.name: path.stat().st_mtime_ns for path in (output / "metrics").glob("*.parquet")}
