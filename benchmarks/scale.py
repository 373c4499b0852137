"""Measures large inputs on this machine, without scoring: `python -m benchmarks.scale`. docs/scale.md holds the result.

Each case makes its input in a temporary directory, which takes up to 2 GB of the disk, and runs in a fresh process, so
that its peak of memory is its own. One process lists and reads; in a run the workers share that work.
"""

import argparse
import json
import pickle
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.summary import COLUMNS, scored_chunk
from pipeline import graph
from pipeline.launch.prepare import find_inputs
from pipeline.parse import parse
from pipeline.samples import png
from transforms.reading.input_files import match_files
from transforms.reading.list_chunks import list_chunks
from transforms.reading.read_chunks import read_series
from transforms.reading.tfrecord_container import HEADER_BYTES, frame
from transforms.storage.run_files import RunFiles
from transforms.storage.run_record import RunRecord
from transforms.summary.summary import Summary
from transforms.worker.sandbox import end_children
from transforms.writing.chunk_files import check_listing
from transforms.writing.optimized_images import tfrecord

Numbers = dict[str, str]
_SIZE = (32, 32)
_DISTINCT = 64


def main() -> int:
    """Run the cases, and print their tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--only", choices=CASES, action="append", help="a case; repeat it for several")
    parser.add_argument("--share", type=float, default=1, help="of every size, for a quick look (default: 1)")
    parser.add_argument("--directory", help="where inputs are made; by default where temporary files are")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        with TemporaryDirectory(dir=given.directory) as directory:
            numbers = CASES[given.case](Path(directory), given.share)
        end_children()
        print(json.dumps(numbers | _peaks()))
        return 0
    for name in given.only or CASES:
        command = [sys.executable, "-m", "benchmarks.scale", f"--case={name}", f"--share={given.share}"]
        command += [f"--directory={given.directory}"] if given.directory else []
        told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        table = Table(name, "")
        for row in json.loads(told.splitlines()[-1]).items():
            table.add_row(*row)
        Console(width=100).print(table)
    return 0


def one_row_group(directory: Path, share: float) -> Numbers:
    """A million pairs in a single row group."""
    return _read(directory, _parquet(directory, int(1_000_000 * share), int(1_000_000 * share)))


def small_row_groups(directory: Path, share: float) -> Numbers:
    """20 000 row groups of ten pairs."""
    return _read(directory, _parquet(directory, int(200_000 * share), 10))


def many_files(directory: Path, share: float) -> Numbers:
    """100 000 TFRecord files of one pair."""
    count = int(100_000 * share)
    content = tfrecord({"id": "pair", "generated": _images()[0], "target": _images()[1]})
    for number in range(count):
        folder = directory / f"{number // 1000:03}"
        if number % 1000 == 0:
            folder.mkdir()
        (folder / f"{number:06}.tfrecord").write_bytes(content)
    return {"files": f"{count}", **_read(directory, f"{directory}/*/*.tfrecord"), **_launch(directory)}


def large_tfrecord(directory: Path, share: float) -> Numbers:
    """A TFRecord file of 20 GB: the records' data are holes, which listing skips."""
    records, data_bytes = int(200_000 * share), 100_000
    header = frame(bytes(data_bytes))[:HEADER_BYTES]
    step = len(frame(b"")) + data_bytes
    path = directory / "pairs.tfrecord"
    with path.open("wb") as file:
        for number in range(records):
            file.seek(number * step)
            file.write(header)
        file.truncate(records * step)
    return {"GB": f"{path.stat().st_size / 1e9:.1f}", **_list(str(path))[0]}


def summaries(directory: Path, share: float) -> Numbers:
    """The end of a run: the summaries of 2.5 million pairs in 10 000 chunks, and the listing of their files."""
    count = int(10_000 * share)
    random = np.random.default_rng(0)
    one = scored_chunk(random)
    summary, each = Summary.empty(COLUMNS), Summary.of_chunk(one, COLUMNS)
    names = [f"pairs-00000-of-01000-0123456789abcdef-{n:09d}-{n + 1:09d}" for n in range(count)]
    started = time.perf_counter()
    for name in names:
        ids = random.integers(0, 2**63, len(one.metrics)).astype(np.uint64)
        summary.merge(replace(each, done={name}, ids=[ids]))
    merged = time.perf_counter()
    duplicates = summary.duplicate_ids
    counted = time.perf_counter()
    shuffled = len(pickle.dumps(summary))
    files = RunFiles(str(directory))
    Path(files.metrics_directory).mkdir()
    for name in names:
        (Path(files.metrics_directory) / f"{name}.parquet").touch()
    begun = time.perf_counter()
    check_listing(files, summary.done, summary.with_failures)
    listed = time.perf_counter()
    return {
        "pairs, chunks, columns": f"{summary.scored}, {summary.chunks}, {len(COLUMNS)}",
        "merge, ms a chunk": f"{1e3 * (merged - started) / count:.2f}",
        f"count {duplicates} duplicates among the ids, s": f"{counted - merged:.2f}",
        "bytes a chunk of 256 pairs, as it travels": f"{shuffled / count:.0f}",
        "list the local metrics, s": f"{listed - begun:.2f}",
    }


CASES: dict[str, Callable[[Path, float], Numbers]] = {
    case.__name__: case for case in (one_row_group, small_row_groups, many_files, large_tfrecord, summaries)
}


def _parquet(directory: Path, pairs: int, group: int) -> str:
    """A file of small pairs, and its path."""
    images = _images()
    path = directory / "pairs.parquet"
    schema = pa.schema([("id", pa.string()), ("generated", pa.binary()), ("target", pa.binary())])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for start in range(0, pairs, group):
            numbers = np.arange(start, min(start + group, pairs))
            pool = pa.array(images, pa.binary())
            columns = [pa.array(map(str, numbers)), *(pool.take(pa.array((numbers + k) % _DISTINCT)) for k in (0, 1))]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=group)
    return str(path)


def _images() -> list[bytes]:
    random = np.random.default_rng(0)
    return [png(Image.fromarray(random.integers(0, 64, (*_SIZE, 3), np.uint8))) for _ in range(_DISTINCT)]


def _list(pattern: str) -> tuple[Numbers, list[list]]:
    config = parse([f"--input={pattern}", "--output=unused", "--losses=mae", "--quiet"])
    with _timed() as find:
        files = match_files([pattern])
    with _timed() as listing:
        series = [list(list_chunks(file, config.input_format, config.fields, config.chunk_pairs)) for file in files]
    flat = [one for of_file in series for one in of_file]
    pairs = sum(chunk.pairs for one in flat for chunk in one)
    numbers = {
        "pairs, chunks, series": f"{pairs}, {sum(map(len, flat))}, {len(flat)}",
        "find, s": f"{find[0]:.2f}",
        "list, s": f"{listing[0]:.2f}",
    }
    return numbers, flat


def _read(directory: Path, pattern: str) -> Numbers:
    numbers, series = _list(pattern)
    config = parse([f"--input={pattern}", f"--output={directory}/run", "--losses=mae", "--quiet"])
    pairs = 0
    with _timed() as reading:
        for one in series:
            pairs += sum(len(encoded.pairs) for encoded in read_series(one, config.fields, (), config.sandbox))
    size = sum(file.size for file in match_files([pattern]))
    return {"MB": f"{size / 1e6:.0f}", **numbers, "read, s": f"{reading[0]:.2f}", "pairs read": f"{pairs}"}


def _launch(directory: Path) -> Numbers:
    """What the launcher does with many files, and what a worker does for every chunk."""
    config = parse([f"--input={directory}/*/*.tfrecord", f"--output={directory}/run", "--losses=mae", "--quiet"])
    with _timed() as finding:
        files, _, keep = find_inputs(config)
    record = RunRecord(fingerprint="f", claim="c", identity={"input": [asdict(file) for file in files]})
    run = RunFiles(config.output)
    run.write_record(record)
    pipeline = beam.Pipeline("FnApiRunner")
    graph.build(pipeline, config, keep, record)
    with _timed() as checking:
        run.check_owner("f", "c")
    return {
        "find and check, on the launcher, s": f"{finding[0]:.2f}",
        "run.json, MB": f"{Path(run.config).stat().st_size / 1e6:.1f}",
        "the job's graph, MB": f"{pipeline.to_runner_api().ByteSize() / 1e6:.1f}",
        "ask for the owner, for each chunk, ms": f"{1e3 * checking[0]:.1f}",
    }


def _peaks() -> Numbers:
    own, children = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {"peak of this process, of its child, MiB": f"{own:.0f}, {children:.0f}"}


@contextmanager
def _timed() -> Iterator[list[float]]:
    seconds: list[float] = []
    started = time.perf_counter()
    yield seconds
    seconds.append(time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
