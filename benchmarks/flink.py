"""Compares Flink with DirectRunner on this machine, and measures its worker's memory: `python -m benchmarks.flink`.

Both engines score the same pairs on the same cores, in turns. The best round of each counts, because other work on the
machine can only slow a round down. Speed is measured from the first finished chunks to the last one; the time an engine
takes to start is reported separately.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from benchmarks.bounds import SQUARE, sample_pairs
from deploy.flink.session_cluster import SessionCluster
from pipeline.samples import write_parquet, write_tfrecord

SLOTS = 2
TINY = ((32, 32),)
_SAMPLE_SECONDS = 0.25


def main() -> int:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flink", description=__doc__)
    parser.add_argument("--pairs", type=int, default=192, help="pairs of 256x256 to time (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each engine (default: %(default)s)")
    parser.add_argument(
        "--tiny_pairs", type=int, default=100_000, help="pairs of 32x32 to watch the memory with (default: %(default)s)"
    )
    arguments = parser.parse_args()
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as name, SessionCluster(SLOTS) as cluster:
        directory = Path(name)
        speeds = _speeds(cluster, arguments.pairs, arguments.rounds, directory)
        console.print(f"--preset=default, 256x256, on {os.cpu_count()} cores", speeds, sep="\n")
        console.print("--preset=edges on Flink", _memory(cluster, arguments.tiny_pairs, directory), sep="\n")
    return 0


def _speeds(cluster: SessionCluster, pairs: int, rounds: int, directory: Path) -> Table:
    path = directory / "pairs.parquet"
    write_parquet(path, sample_pairs(SQUARE, pairs))
    flags = [f"--input={path}", "--preset=default", "--chunk_pairs=16"]
    directs, flinks = [], []
    for number in range(rounds):
        directs.append(_score(subprocess.Popen, flags, directory / f"direct-{number}"))
        flinks.append(_score(cluster.start, [*flags, *cluster.flags()], directory / f"flink-{number}"))
    direct, flink = (max(runs, key=lambda run: run.speed) for runs in (directs, flinks))
    table = Table("engine", "pairs/s", "ratio", "seconds to the first chunk")
    table.add_row("DirectRunner", f"{direct.speed:.1f}", "", f"{direct.first:.1f}")
    table.add_row("Flink", f"{flink.speed:.1f}", f"{flink.speed / direct.speed:.2f}", f"{flink.first:.1f}")
    return table


def _memory(cluster: SessionCluster, pairs: int, directory: Path) -> Table:
    samples: list[tuple[int, int]] = []

    def sample(chunks: int) -> None:
        samples.extend((chunks, worker.kib) for worker in cluster.workers())

    path = directory / "tiny.tfrecord"
    write_tfrecord(path, sample_pairs(TINY, pairs))
    flags = [f"--input={path}", "--preset=edges", *cluster.flags()]
    scored = _score(cluster.start, flags, directory / "tiny", sample)
    peaks = [
        max(kib for chunks, kib in samples if low < chunks / scored.chunks <= high) / 1024
        for low, high in ((0, 0.25), (0.75, 1))
    ]
    table = Table("32x32 pairs", "pairs/s", "peak MiB, first quarter", "last quarter", "ratio")
    table.add_row(str(pairs), f"{scored.speed:.0f}", *(f"{peak:.0f}" for peak in peaks), f"{peaks[1] / peaks[0]:.2f}")
    return table


@dataclass(frozen=True)
class _Scored:
    """The measurements of a run.

    Attributes:
        chunks: number of chunks written.
        first: seconds until the first chunk was finished.
        speed: pairs per second after that.
    """

    chunks: int
    first: float
    speed: float


def _score(
    start: Callable[[Sequence[str]], subprocess.Popen],
    flags: Sequence[str],
    output: Path,
    watch: Callable[[int], object] = lambda chunks: None,
) -> _Scored:
    """Run to the end, and regularly call `watch` with the number of finished chunks."""
    began = time.time()
    run = start([sys.executable, "-m", "pipeline.run", "--quiet", f"--output={output}", *flags])
    while run.poll() is None:
        watch(sum(1 for _ in (output / "metrics").glob("*.parquet")))
        time.sleep(_SAMPLE_SECONDS)
    if run.returncode:
        raise SystemExit(f"error: the run in {output} broke off")
    written = (output / "metrics").iterdir()
    finished = sorted((path.stat().st_mtime, pq.read_metadata(path).num_rows) for path in written)
    first, last = finished[SLOTS - 1][0], finished[-1][0]
    # At that time each slot has finished one chunk and begins the next.
    later = sum(pairs for _, pairs in finished[SLOTS:])
    return _Scored(len(finished), finished[0][0] - began, later / (last - first))


if __name__ == "__main__":
    sys.exit(main())
