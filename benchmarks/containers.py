"""Measures what containers cost beside decoding: `python -m benchmarks.containers`.

The same pairs of 256x256 as folders, a zip file, a tar, Parquet and TFRecord: how long a pair takes to list and to
read, without scoring, and how fast a whole run of `--preset=edges` is. The bound is decoding alone, on all cores.
"""

import argparse
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks.bounds import DISTINCT_PAIRS, SQUARE, decoding_speed, sample_pairs
from pipeline.launch.prepare import find_inputs
from pipeline.parse import parse
from pipeline.run import main as run
from pipeline.samples import SamplePair, write_parquet, write_tfrecord
from transforms.reading.list_chunks import list_chunks
from transforms.reading.read_chunks import read_series

SIDES = ("generated", "target")


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.containers", description=__doc__)
    parser.add_argument("--pairs", type=int, default=20_000, help="in each container (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the fastest counts (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=12, help="of measuring decoding (default: %(default)s)")
    parser.add_argument("--only", choices=WRITERS, action="append", help="a container; repeat it for several")
    given = parser.parse_args()
    with TemporaryDirectory() as directory:
        # The first run of a process imports and starts more than the others.
        run_seconds(Path(directory), _parquet(Path(directory), sample_pairs(SQUARE, DISTINCT_PAIRS)))
    decoding = decoding_speed(SQUARE, given.seconds)
    columns = ("container", "list, ms/pair", "read, ms/pair", "run, pairs/s", "beyond decoding, ms/pair", "run/Parquet")
    table = Table(*columns)
    parquet = 0.0
    for name in given.only or WRITERS:
        with TemporaryDirectory() as directory:
            flags = WRITERS[name](Path(directory), sample_pairs(SQUARE, given.pairs))
            listing, reading = reading_seconds(Path(directory), flags)
            speed = given.pairs / min(run_seconds(Path(directory), flags) for _ in range(given.rounds))
        parquet = speed if name == "parquet" else parquet
        milliseconds = [1000 * seconds / given.pairs for seconds in (listing, reading)]
        beyond = 1000 * (1 / speed - 1 / decoding)
        ratio = f"{speed / parquet:.2f}" if parquet else ""
        table.add_row(name, *(f"{value:.3f}" for value in milliseconds), f"{speed:.1f}", f"{beyond:.2f}", ratio)
    Console(width=110).print(f"{given.pairs} pairs; decoding alone: {decoding:.1f} pairs/s", table, sep="\n")
    return 0


def reading_seconds(directory: Path, flags: list[str]) -> tuple[float, float]:
    """Seconds to find the pairs and cut them into chunks, and to read the chunks one after the other."""
    config = parse([*flags, f"--output={directory}/read", "--preset=edges", "--quiet"])
    start = time.perf_counter()
    files, listing, keep = find_inputs(config)
    if listing:
        path = Path(files[0].path)
        path.parent.mkdir(parents=True)
        path.write_bytes(listing)
    series = [one for file in files for one in list_chunks(file, config.input_format, config.fields)]
    listed = time.perf_counter()
    for one in series:
        for encoded in read_series(one, config.fields, keep, config.sandbox):
            assert not encoded.failures
    return listed - start, time.perf_counter() - listed


def run_seconds(directory: Path, flags: list[str]) -> float:
    """Seconds of a whole run in this process."""
    start = time.perf_counter()
    command = [*flags, f"--output={directory}/run", "--preset=edges", "--runner=FnApiRunner", "--overwrite", "--quiet"]
    assert run(command) == 0
    return time.perf_counter() - start


def _parquet(directory: Path, pairs: Iterable[SamplePair]) -> list[str]:
    write_parquet(directory / "pairs.parquet", pairs)
    return [f"--input={directory}/pairs.parquet"]


def _tfrecord(directory: Path, pairs: Iterable[SamplePair]) -> list[str]:
    write_tfrecord(directory / "pairs.tfrecord", pairs)
    return [f"--input={directory}/pairs.tfrecord"]


def _tar(directory: Path, pairs: Iterable[SamplePair]) -> list[str]:
    with tarfile.open(directory / "pairs.tar", "w") as tar:
        for number, pair in enumerate(pairs):
            for side, image in zip(SIDES, (pair.generated, pair.target), strict=True):
                member = tarfile.TarInfo(f"{number:06}.{side}.png")
                member.size = len(image)
                tar.addfile(member, BytesIO(image))
    return [f"--input={directory}/pairs.tar"]


def _zip(directory: Path, pairs: Iterable[SamplePair]) -> list[str]:
    # As a rule images in zip files are stored, because deflate makes them no smaller.
    with zipfile.ZipFile(directory / "both.zip", "w") as archive:
        for number, pair in enumerate(pairs):
            for side, image in zip(SIDES, (pair.generated, pair.target), strict=True):
                archive.writestr(f"{side}/{number:06}.png", image)
    return [f"--{side}={directory}/both.zip/{side}" for side in SIDES]


def _folders(directory: Path, pairs: Iterable[SamplePair]) -> list[str]:
    for side in SIDES:
        (directory / side).mkdir()
    for number, pair in enumerate(pairs):
        for side, image in zip(SIDES, (pair.generated, pair.target), strict=True):
            (directory / side / f"{number:06}.png").write_bytes(image)
    return [f"--{side}={directory}/{side}" for side in SIDES]


# Parquet first, because the others are compared with it.
WRITERS: dict[str, Callable[[Path, Iterable[SamplePair]], list[str]]] = {
    "parquet": _parquet,
    "tfrecord": _tfrecord,
    "tar": _tar,
    "zip": _zip,
    "folders": _folders,
}


if __name__ == "__main__":
    sys.exit(main())
