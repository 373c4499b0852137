"""Write the files of a chunk, whole or not at all and under the same names on every try, and read them back."""

import json
from collections.abc import Iterable
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from transforms.schema import Chunk, Failure, ScoredChunk
from transforms.storage.run_files import RunFiles, delete_file
from transforms.writing.metrics_text import TEXT_FORMATS
from transforms.writing.optimized_images import OPTIMIZED_FORMATS


def chunk_directories(files: RunFiles) -> tuple[str, ...]:
    """The directories of a run that hold the files of chunks."""
    text = map(files.metrics_text_directory, TEXT_FORMATS)
    return files.metrics_directory, *text, files.failures_directory, files.optimized_directory


def split_done(series: Iterable[Chunk], files: RunFiles) -> tuple[list[Chunk], list[Chunk]]:
    """Split chunks into those still to do and those an earlier try has done, whose metrics exist."""
    to_do: list[Chunk] = []
    done: list[Chunk] = []
    for chunk in series:
        (done if FileSystems.exists(files.metrics(chunk)) else to_do).append(chunk)
    return to_do, done


def write_chunk(
    chunk: ScoredChunk, files: RunFiles, metrics_format: str = "parquet", optimized_format: str = "parquet"
) -> None:
    """Write the chunk's optimized images, its failures and its metrics as text, then its metrics.

    Args:
        chunk: the result to write.
        files: the run's files.
        metrics_format: a key of `TEXT_FORMATS` to write metrics as text beside Parquet; `parquet` for Parquet alone.
        optimized_format: a key of `OPTIMIZED_FORMATS`.
    """
    name = chunk.chunk.name
    if chunk.optimized is not None:
        for file, content in OPTIMIZED_FORMATS[optimized_format](chunk.optimized, name).items():
            files.write_whole(FileSystems.join(files.optimized_directory, file), content)
    failures = files.failures(chunk.chunk)
    if chunk.failures:
        lines = "".join(json.dumps(asdict(failure)) + "\n" for failure in chunk.failures)
        files.write_whole(failures, lines.encode())
    else:
        # An earlier try may have written failures and ended before its metrics; what failed then has now worked.
        delete_file(failures)
    if metrics_format in TEXT_FORMATS:
        path = FileSystems.join(files.metrics_text_directory(metrics_format), f"{name}.{metrics_format}")
        files.write_whole(path, TEXT_FORMATS[metrics_format](chunk.metrics).encode())
    sink = pa.BufferOutputStream()
    pq.write_table(chunk.metrics, sink, compression="zstd")
    files.write_whole(files.metrics(chunk.chunk), sink.getvalue())


def read_chunk(chunk: Chunk, files: RunFiles) -> ScoredChunk:
    """Read back the metrics and failures that `write_chunk` wrote."""
    with FileSystems.open(files.metrics(chunk), compression_type=CompressionTypes.UNCOMPRESSED) as file:
        metrics = pq.read_table(file)
    failures: tuple[Failure, ...] = ()
    if FileSystems.exists(files.failures(chunk)):
        with FileSystems.open(files.failures(chunk), compression_type=CompressionTypes.UNCOMPRESSED) as file:
            failures = tuple(Failure(**json.loads(line)) for line in file.read().splitlines())
    return ScoredChunk(chunk, metrics, failures)
