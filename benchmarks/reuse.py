"""Measures what a run with --reuse costs when little has changed: `python -m benchmarks.reuse`.

It scores pairs of many files, or of two folders, changes a share of the files, and scores them again with --reuse.
`--side=64 --preset=rendering` takes 1.2 GB and some minutes; what a small picture costs is little beside a run's start.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from benchmarks.bounds import sample_pairs
from pipeline.run import main as run
from pipeline.samples import SCHEMA, SamplePair

# Pairs of the run that is not measured.
FEW = 100


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reuse", description=__doc__)
    parser.add_argument("--pairs", type=int, default=100_000, help="in all files (default: %(default)s)")
    parser.add_argument("--files", type=int, default=400, help="of as many pairs each, a chunk (default: %(default)s)")
    parser.add_argument("--folders", action="store_true", help="pairs of two folders instead of files of records")
    parser.add_argument("--changed", type=float, default=0.01, help="share of the files (default: %(default)s)")
    parser.add_argument("--side", type=int, default=256, help="of the square pictures (default: %(default)s)")
    parser.add_argument("--preset", default="edges", help="what to compute (default: %(default)s)")
    options = parser.parse_args()
    table = Table("run", "seconds", "of a run from nothing", "pairs taken over")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        size = ((options.side, options.side),)
        pairs = sample_pairs(size, options.pairs)
        if options.folders:
            files = write_folders(directory, pairs)
            flags = [f"--generated={directory}/generated", f"--target={directory}/target"]
        else:
            files = write_files(directory, pairs, options.pairs // options.files)
            flags = [f"--input={directory}/*.parquet"]
        flags.append(f"--preset={options.preset}")
        # The first run of a process also imports and compiles.
        write_files(directory / "few", sample_pairs(size, FEW), FEW)
        seconds([f"--input={directory}/few/*", flags[-1]], directory / "warm")
        whole = seconds(flags, directory / "first")
        table.add_row("from nothing", f"{whole:.1f}", "100 %", "")
        reuse = [*flags, f"--reuse={directory / 'first'}"]
        table.add_row(*_row("nothing has changed", seconds(reuse, directory / "same"), whole, directory / "same"))
        step = round(1 / options.changed)
        for path in files[step // 2 :: step]:
            # Its time is enough.
            path.touch()
        changed = f"{options.changed:.0%} of the files have changed"
        table.add_row(*_row(changed, seconds(reuse, directory / "changed"), whole, directory / "changed"))
    Console().print(
        f"{options.pairs} pairs of {options.side}x{options.side}, --preset={options.preset}", table, sep="\n"
    )
    return 0


def write_files(directory: Path, pairs: Iterator[SamplePair], each: int) -> list[Path]:
    """Write Parquet files of `each` pairs, each in one row group and thus one chunk."""
    directory.mkdir(exist_ok=True)
    written: list[Path] = []
    while records := [asdict(pair) for pair in islice(pairs, each)]:
        written.append(directory / f"{len(written):05d}.parquet")
        pq.write_table(pa.Table.from_pylist(records, SCHEMA), written[-1], compression="none")
    return written


def write_folders(directory: Path, pairs: Iterator[SamplePair]) -> list[Path]:
    """Write the images to two folders. Returns the paths of the generated ones."""
    for side in ("generated", "target"):
        (directory / side).mkdir()
    written = []
    for number, pair in enumerate(pairs):
        written.append(directory / "generated" / f"{number:07d}.png")
        written[-1].write_bytes(pair.generated)
        (directory / "target" / written[-1].name).write_bytes(pair.target)
    return written


def seconds(flags: list[str], output: Path) -> float:
    """How long a run takes."""
    start = time.perf_counter()
    assert run([*flags, f"--output={output}", "--quiet"]) == 0
    return time.perf_counter() - start


def _row(name: str, took: float, whole: float, output: Path) -> tuple[str, ...]:
    reused = json.loads((output / "run.json").read_text())["reused"]
    return name, f"{took:.1f}", f"{took / whole:.1%}", str(reused)


if __name__ == "__main__":
    sys.exit(main())
