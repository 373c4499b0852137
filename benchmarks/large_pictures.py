"""Measures the memory and the time of pairs of large pictures: `python -m benchmarks.large_pictures`. Linux only.

Each pair is scored by a run in processes of its own. Memory is the largest sum of what the worker and its children hold
at a time.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

_PAUSE = 0.02


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_pictures", description=__doc__)
    parser.add_argument("--megapixels", default="2,12,48", help="of a picture each (default: %(default)s)")
    parser.add_argument("--format", choices=("jpg", "png"), default="jpg", help="of the files (default: %(default)s)")
    parser.add_argument("--preset", default="default", help="what to compute (default: %(default)s)")
    parser.add_argument("--precision", default="float32", help="of the network (default: %(default)s)")
    options = parser.parse_args()
    table = Table("megapixels", "size", "seconds", "CPU seconds", "peak memory, MiB")
    for megapixels in map(float, options.megapixels.split(",")):
        width, height = round((megapixels * 4 / 3) ** 0.5 * 1000), round((megapixels * 3 / 4) ** 0.5 * 1000)
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            _write_pair(directory, height, width, options.format)
            sides = [f"--{side}={directory / side}" for side in ("generated", "target")]
            flags = [f"--output={directory / 'run'}", f"--preset={options.preset}", f"--precision={options.precision}"]
            command = [sys.executable, "-m", "pipeline.run", "--runner=FnApiRunner", *sides, *flags, "--quiet"]
            seconds, cpu_seconds, memory = _measure(command)
        sizes = (f"{megapixels:g}", f"{width}x{height}")
        table.add_row(*sizes, f"{seconds:.1f}", f"{cpu_seconds:.1f}", f"{memory / 2**20:.0f}")
    Console(width=110).print(f"--preset={options.preset} --precision={options.precision}", table, sep="\n")
    return 0


def _write_pair(directory: Path, height: int, width: int, format: str) -> None:
    """Write a smooth picture, and the same from a quarter of its height and width."""
    colors = np.random.default_rng(0).integers(0, 256, (height // 100, width // 100, 3), dtype=np.uint8)
    target = Image.fromarray(colors).resize((width, height), Image.Resampling.BICUBIC)
    generated = target.resize((width // 4, height // 4)).resize((width, height), Image.Resampling.BILINEAR)
    for side, image in (("generated", generated), ("target", target)):
        (directory / side).mkdir()
        image.save(directory / side / f"picture.{format}")


def _measure(command: list[str]) -> tuple[float, float, int]:
    """Seconds on the clock, CPU seconds, and the largest sum of the bytes of its processes."""
    begun, before, peak = time.perf_counter(), _cpu_seconds(), 0
    process = subprocess.Popen(command)
    while process.poll() is None:
        peak = max(peak, sum(map(_resident, _with_children(process.pid))))
        time.sleep(_PAUSE)
    assert process.returncode == 0
    return time.perf_counter() - begun, _cpu_seconds() - before, peak


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _with_children(pid: int) -> Iterator[int]:
    yield pid
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                yield from _with_children(int(child))
    except OSError:
        # It has ended in the meantime.
        return


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
