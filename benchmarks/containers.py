"""Measures what containers cost beside decoding: `python -m benchmarks.containers`.

The same pairs of 256x256 as folders, a zip file, a tar, Parquet and TFRecord: how long a pair takes to list and to
read, without scoring, and how fast a whole run of `--preset=edges` is. The bound is decoding alone, on all cores.

`--listing=1000000` measures instead how long the launcher takes to pair so many files with as many others and to cut
their listing, and its memory.
"""

import argparse
import resource
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from benchmarks.bounds import DISTINCT_PAIRS, SQUARE, decoding_speed, sample_pairs
from pipeline.config import Config
from pipeline.launch.prepare import find_inputs
from pipeline.parse import parse
from pipeline.run import main as run
from pipeline.samples import SamplePair, write_parquet, write_tfrecord
from transforms.reading.list_chunks import list_chunks
from transforms.reading.read_chunks import read_series
from transforms.schema import ChunkSeries

SIDES = ("generated", "target")
# File systems limit how many names a file may have.
_LINKS = 50_000


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.containers", description=__doc__)
    parser.add_argument("--pairs", type=int, default=20_000, help="in each container (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the fastest counts (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=12, help="of measuring decoding (default: %(default)s)")
    parser.add_argument("--only", choices=WRITERS, action="append", help="a container; repeat it for several")
    parser.add_argument("--listing", type=int, metavar="PAIRS", help="pair files of a few bytes, and nothing else")
    given = parser.parse_args()
    if given.listing:
        return _show_listing(given.listing)
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


def _show_listing(pairs: int) -> int:
    """Pair files, and print the time and the memory that it takes."""
    with TemporaryDirectory() as directory:
        for side in SIDES:
            _many_files(Path(directory, side), pairs)
        start, before, imported = time.perf_counter(), time.process_time(), _peak_memory()
        _, series, _ = _listed(Path(directory), [f"--{side}={directory}/{side}" for side in SIDES])
        seconds, of_cpu = time.perf_counter() - start, time.process_time() - before
        memory = _peak_memory() - imported
    cut = sum(len(one) for one in series)
    print(f"{pairs} pairs, {cut} chunks: {seconds:.0f} s, {of_cpu:.0f} s of CPU time, {memory / 1e9:.1f} GB of memory")
    return 0


def _peak_memory() -> int:
    # macOS counts bytes, Linux kilobytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _many_files(directory: Path, count: int) -> None:
    directory.mkdir()
    for first in range(0, count, _LINKS):
        file = directory / f"{first:07}.png"
        file.write_bytes(b"no image")
        for number in range(first + 1, min(first + _LINKS, count)):
            (directory / f"{number:07}.png").hardlink_to(file)


def _listed(directory: Path, flags: list[str]) -> tuple[Config, list[ChunkSeries], tuple[pa.Field, ...]]:
    """The pairs as a run finds them and cuts them into chunks, and its kept fields."""
    config = parse([*flags, f"--output={directory}/read", "--preset=edges", "--quiet"])
    files, listing, keep = find_inputs(config)
    if listing:
        path = Path(files[0].path)
        path.parent.mkdir(parents=True)
        path.write_bytes(listing)
    return config, [one for file in files for one in list_chunks(file, config.input_format, config.fields)], keep


def reading_seconds(directory: Path, flags: list[str]) -> tuple[float, float]:
    """Seconds to find the pairs and cut them into chunks, and to read the chunks one after the other."""
    start = time.perf_counter()
    config, series, keep = _listed(directory, flags)
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
