"""Measures what a run with --reuse costs when few files have changed: `python -m benchmarks.reuse`.

It scores pairs of many files, changes a share of the files, and scores them again, from nothing and with --reuse.
"""

import argparse
import json
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.bounds import sample_pairs
from pipeline.run import main as run
from pipeline.samples import write_parquet


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reuse", description=__doc__)
    parser.add_argument("--pairs", type=int, default=100_000, help="in all files (default: %(default)s)")
    parser.add_argument("--files", type=int, default=400, help="of as many pairs each (default: %(default)s)")
    parser.add_argument("--changed", type=float, default=0.01, help="share of the files (default: %(default)s)")
    parser.add_argument("--side", type=int, default=256, help="of the square pictures (default: %(default)s)")
    parser.add_argument("--preset", default="edges", help="what to compute (default: %(default)s)")
    options = parser.parse_args()
    table = Table("run", "seconds", "of a run from nothing", "pairs taken over")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        each = options.pairs // options.files
        pairs = sample_pairs(((options.side, options.side),), each * options.files)
        for number in range(options.files):
            write_parquet(directory / f"{number:05d}.parquet", islice(pairs, each))
        flags = [f"--input={directory}/*.parquet", f"--preset={options.preset}"]
        # The first run of a process also imports and compiles.
        seconds(flags, directory / "warm")
        whole = seconds(flags, directory / "first")
        table.add_row("from nothing", f"{whole:.1f}", "100 %", "")
        reuse = [*flags, f"--reuse={directory / 'first'}"]
        table.add_row(*_row("nothing has changed", seconds(reuse, directory / "same"), whole, directory / "same"))
        for number in range(round(options.changed * options.files)):
            # Its time is enough.
            (directory / f"{number:05d}.parquet").touch()
        changed = f"{options.changed:.0%} of the files have changed"
        table.add_row(*_row(changed, seconds(reuse, directory / "changed"), whole, directory / "changed"))
    Console().print(
        f"{options.pairs} pairs of {options.side}x{options.side}, --preset={options.preset}", table, sep="\n"
    )
    return 0


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
