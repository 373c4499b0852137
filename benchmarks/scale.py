"""Measures large inputs on this machine, without scoring: `python -m benchmarks.scale`. docs/scale.md holds the result.

Each case makes its input in a temporary directory, which takes up to 2 GB of the disk. A fresh process then lists and
reads it, so that the peak of memory is its own; in a run the workers share that work. One of its children parses.
"""

import argparse
import json
import os
import pickle
import re
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
from deploy.flink.processes import children
from pipeline import graph
from pipeline.launch.prepare import find_inputs
from pipeline.parse import parse
from pipeline.samples import png
from transforms.reading.example_proto import example_class
from transforms.reading.input_files import match_files
from transforms.reading.list_chunks import list_chunks
from transforms.reading.read_chunks import read_series
from transforms.reading.tfrecord_container import HEADER_BYTES, frame
from transforms.schema import ChunkSeries
from transforms.storage.run_files import RunFiles
from transforms.storage.run_record import RunRecord
from transforms.summary.ids import Ids
from transforms.summary.summary import Summary
from transforms.worker.sandbox import end_children
from transforms.writing.chunk_files import check_listing

# Values by what they measure, in words.
Numbers = dict[str, str]
_SIZE = (12, 12)
_DISTINCT = 64


def main() -> int:
    """Run the cases, each part of one in a process of its own, and print their tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--only", choices=CASES, action="append", help="a case; repeat it for several")
    parser.add_argument("--share", type=float, default=1, help="of every size, for a quick look (default: 1)")
    parser.add_argument("--directory", help="where inputs are made; by default where temporary files are")
    parser.add_argument("--part", choices=("make", "measure"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        make, measure = CASES[given.only[0]]
        directory = Path(given.directory)
        print(json.dumps(make(directory, given.share) if given.part == "make" else measure(directory) | _peaks()))
        end_children()
        return 0
    for name in given.only or CASES:
        table = Table(name, "")
        with TemporaryDirectory(dir=given.directory) as made:
            for part in ("make", "measure"):
                command = [sys.executable, "-m", "benchmarks.scale", f"--only={name}", f"--part={part}"]
                command += [f"--share={given.share}", f"--directory={made}"]
                told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
                for row in json.loads(told).items():
                    table.add_row(*row)
        Console(width=100).print(table)
    return 0


def _parquet(directory: Path, pairs: int, group: int) -> Numbers:
    """A Parquet file of small pairs."""
    path = directory / "pairs.parquet"
    schema = pa.schema([("id", pa.string()), ("generated", pa.binary()), ("target", pa.binary())])
    pool = pa.array(_images(), pa.binary())
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for start in range(0, pairs, group):
            numbers = np.arange(start, min(start + group, pairs))
            columns = [pa.array(map(str, numbers)), *(pool.take(pa.array((numbers + k) % _DISTINCT)) for k in (0, 1))]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=group)
    return {"row groups": f"{-(-pairs // group)}", "MB": f"{path.stat().st_size / 1e6:.0f}"}


def _one_row_group(directory: Path, share: float) -> Numbers:
    return _parquet(directory, int(1_000_000 * share), int(1_000_000 * share))


def _small_row_groups(directory: Path, share: float) -> Numbers:
    return _parquet(directory, int(200_000 * share), 10)


def _many_files(directory: Path, share: float) -> Numbers:
    """TFRecord files of one pair."""
    count = int(100_000 * share)
    example = example_class()()
    for name, value in zip(("id", "generated", "target"), (b"pair", *_images()), strict=False):
        example.features.feature[name].bytes_list.value.append(value)
    content = frame(example.SerializeToString())
    for number in range(count):
        folder = directory / f"{number // 1000:03}"
        if number % 1000 == 0:
            folder.mkdir()
        (folder / f"{number:06}.tfrecord").write_bytes(content)
    return {"files": f"{count}", "MB": f"{count * len(content) / 1e6:.0f}"}


def _large_tfrecord(directory: Path, share: float) -> Numbers:
    """A TFRecord file of 20 GB, 1 GB on the disk: the data of the records are holes, which listing skips."""
    records, data_bytes = int(200_000 * share), 100_000
    header = frame(bytes(data_bytes))[:HEADER_BYTES]
    step = len(frame(b"")) + data_bytes
    with (directory / "pairs.tfrecord").open("wb") as file:
        for number in range(records):
            file.seek(number * step)
            file.write(header)
        file.truncate(records * step)
    return {"MB": f"{records * step / 1e6:.0f}"}


def _chunk_files(directory: Path, share: float) -> Numbers:
    """The names of a run's metrics."""
    count = int(20_000 * share)
    metrics = Path(RunFiles(str(directory)).metrics_directory)
    metrics.mkdir()
    for n in range(count):
        (metrics / f"pairs-00000-of-01000-0123456789abcdef-{n:09d}-{n + 1:09d}.parquet").touch()
    return {"chunks": f"{count}"}


def _list(directory: Path) -> tuple[Numbers, list[ChunkSeries], str]:
    pattern = next(f"{directory}/{pattern}" for pattern in ("*.*", "*/*.*") if any(directory.glob(pattern)))
    config = parse([f"--input={pattern}", "--output=unused", "--losses=mae", "--quiet"])
    with _timed() as find:
        files = match_files([pattern])
    with _timed() as listing:
        series = [one for file in files for one in list_chunks(file, config.input_format, config.fields)]
    chunks = [chunk for one in series for chunk in one]
    numbers = {
        "pairs, chunks, series": f"{sum(chunk.pairs for chunk in chunks)}, {len(chunks)}, {len(series)}",
        "find, s": f"{find[0]:.2f}",
        "list, s": f"{listing[0]:.2f}",
    }
    return numbers, series, pattern


def _listing(directory: Path) -> Numbers:
    return _list(directory)[0]


def _reading(directory: Path) -> Numbers:
    numbers, series, pattern = _list(directory)
    config = parse([f"--input={pattern}", "--output=unused", "--losses=mae", "--quiet"])
    pairs = 0
    with _timed() as reading:
        for one in series:
            pairs += sum(len(encoded.pairs) for encoded in read_series(one, config.fields, (), config.sandbox))
    return {**numbers, "read, s": f"{reading[0]:.2f}", "pairs read": f"{pairs}"}


def _launching(directory: Path) -> Numbers:
    """Also what the launcher does with many files, and what a worker does for every chunk."""
    numbers = _reading(directory)
    config = parse([f"--input={directory}/*/*.*", f"--output={directory}/run", "--losses=mae", "--quiet"])
    with _timed() as finding:
        files, _, keep = find_inputs(config)
    record = RunRecord(fingerprint="f", claim="c", identity={"input": [asdict(file) for file in files]})
    run = RunFiles(config.output)
    run.write_record(record)
    pipeline = beam.Pipeline("FnApiRunner")
    graph.build(pipeline, config, keep, record)
    with _timed() as checking:
        run.check_owner("f", "c")
    return numbers | {
        "find and check, on the launcher, s": f"{finding[0]:.2f}",
        "run.json, MB": f"{Path(run.config).stat().st_size / 1e6:.1f}",
        "the job's graph, MB": f"{pipeline.to_runner_api().ByteSize() / 1e6:.2f}",
        "ask for the owner, for each chunk, ms": f"{1e3 * checking[0]:.2f}",
    }


def _finishing(directory: Path) -> Numbers:
    """Merge the summaries of the chunks whose files are there, as they travel, and list the files."""
    files = RunFiles(str(directory))
    names = [path.stem for path in Path(files.metrics_directory).iterdir()]
    random = np.random.default_rng(0)
    one = scored_chunk(random)
    summary, each = Summary.empty(COLUMNS), Summary.of_chunk(one, COLUMNS)
    with _timed() as merging:
        for name in names:
            ids = random.integers(0, 2**63, len(one.metrics)).astype(np.uint64)
            summary.merge(replace(each, done={name}, ids=Ids(0, [ids], len(ids))))
    with _timed() as travelling:
        travels = pickle.dumps(summary)
    with _timed() as counting:
        duplicates = summary.duplicate_ids
    with _timed() as listing:
        check_listing(files, summary.done, summary.with_failures)
    return {
        "pairs, columns": f"{summary.scored}, {len(COLUMNS)}",
        "merge, ms a chunk": f"{1e3 * merging[0] / len(names):.2f}",
        "the summary as it travels, bytes a pair": f"{len(travels) / summary.scored:.1f}",
        "pickle it, s": f"{travelling[0]:.2f}",
        f"find {duplicates} duplicate ids, s": f"{counting[0]:.2f}",
        "list the files, local, s": f"{listing[0]:.2f}",
    }


# How an input is made in a directory, and what is measured there.
CASES: dict[str, tuple[Callable[[Path, float], Numbers], Callable[[Path], Numbers]]] = {
    "a million pairs in one row group": (_one_row_group, _reading),
    "20 000 row groups": (_small_row_groups, _reading),
    "100 000 files": (_many_files, _launching),
    "20 GB of TFRecord": (_large_tfrecord, _listing),
    "the end of a run": (_chunk_files, _finishing),
}


def _images() -> list[bytes]:
    random = np.random.default_rng(0)
    return [png(Image.fromarray(random.integers(0, 256, (*_SIZE, 3), np.uint8))) for _ in range(_DISTINCT)]


def _peaks() -> Numbers:
    pids = [os.getpid(), *(child.pid for child in children(os.getpid()))]
    statuses = [Path(f"/proc/{pid}/status") for pid in pids]
    found = [re.search(r"VmHWM:\s+(\d+)", path.read_text()) for path in statuses if path.exists()]
    own, *others = (int(peak[1]) // 1024 for peak in found if peak)
    return {"peak of the process, of its largest child, MiB": f"{own}, {max(others, default=0)}"}


@contextmanager
def _timed() -> Iterator[list[float]]:
    """The seconds that the block took, afterwards."""
    seconds: list[float] = []
    started = time.perf_counter()
    yield seconds
    seconds.append(time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
