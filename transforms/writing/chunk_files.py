"""Write the result of a chunk: whole files or none, under the same names on every try."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Literal

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.pvalue import TaggedOutput

from transforms.schema import Chunk, ChunkSeries, Failure, ScoredChunk
from transforms.storage.run_files import RunFiles, delete_file
from transforms.worker.counters import count
from transforms.writing.metrics_text import metrics_text
from transforms.writing.optimized_images import optimized_files

# Tags of the outputs of SplitDone.
TO_DO, DONE = "to_do", "done"


@dataclass(eq=False)
class SplitDone(beam.DoFn):
    """ChunkSeries -> its chunks still to do (main output), and, tagged `DONE`, each whose files are there already.

    Attributes:
        files: the files of the run.
        fingerprint: of the run.

    Raises:
        ForeignDirectoryError: in `setup`, the directory is not this run's.
    """

    files: RunFiles
    fingerprint: str

    def setup(self) -> None:
        self.files.check_owner(self.fingerprint)

    def process(self, series: ChunkSeries) -> Iterator[ChunkSeries | TaggedOutput[Literal["done"], Chunk]]:
        to_do = []
        for chunk in series:
            if FileSystems.exists(self.files.metrics(chunk)):
                yield TaggedOutput(DONE, chunk)
            else:
                to_do.append(chunk)
        if to_do:
            yield tuple(to_do)


@dataclass(eq=False)
class WriteChunk(beam.PTransform):
    """ScoredChunk -> the same, once its files are written.

    Attributes:
        output: the run's directory.
        fingerprint: of the run.
        metrics_format: a format in which metrics are written beside Parquet; `parquet`: none.
        optimized_format: how optimized images are written, where there are any.
    """

    output: str
    fingerprint: str
    metrics_format: str = "parquet"
    optimized_format: str = "parquet"

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, chunks: beam.PCollection) -> beam.PCollection:
        write = _Write(RunFiles(self.output), self.fingerprint, self.metrics_format, self.optimized_format)
        return chunks | "Write" >> beam.ParDo(write)


@dataclass(eq=False)
class _Write(beam.DoFn):
    files: RunFiles
    fingerprint: str
    metrics_format: str
    optimized_format: str

    def process(self, chunk: ScoredChunk) -> Iterable[ScoredChunk]:
        # Each time: the directory may have been taken since.
        self.files.check_owner(self.fingerprint)
        write_chunk(chunk, self.files, self.metrics_format, self.optimized_format)
        count("chunks_written")
        count("pairs_scored", len(chunk.metrics))
        count("pairs_failed", sum(failure.scope == "pair" for failure in chunk.failures))
        # Images have no part in what follows.
        yield replace(chunk, optimized=None)


@dataclass(eq=False)
class ReadDone(beam.PTransform):
    """Chunk -> its ScoredChunk, as an earlier try wrote it."""

    output: str

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, chunks: beam.PCollection) -> beam.PCollection:
        return chunks | "Read" >> beam.ParDo(_ReadDone(RunFiles(self.output)))


@dataclass(eq=False)
class _ReadDone(beam.DoFn):
    files: RunFiles

    def process(self, chunk: Chunk) -> Iterable[ScoredChunk]:
        count("chunks_found_done")
        count("pairs_done", chunk.pairs)
        yield read_chunk(chunk, self.files)


def write_chunk(
    chunk: ScoredChunk, files: RunFiles, metrics_format: str = "parquet", optimized_format: str = "parquet"
) -> None:
    """Write the chunk's optimized images, its failures and its metrics as text, then its metrics."""
    if chunk.optimized is not None:
        images = optimized_files(chunk.optimized, chunk.chunk, files.optimized_directory, optimized_format)
        for path, content in images.items():
            files.write_whole(path, content)
    failures = files.failures(chunk.chunk)
    if chunk.failures:
        lines = "".join(json.dumps(asdict(failure)) + "\n" for failure in chunk.failures)
        files.write_whole(failures, lines.encode())
    else:
        # Of an earlier try that ended before its metrics: what failed then, a network perhaps, works now.
        delete_file(failures)
    if metrics_format != "parquet":
        path = FileSystems.join(files.metrics_text_directory(metrics_format), f"{chunk.chunk.name}.{metrics_format}")
        files.write_whole(path, metrics_text(chunk.metrics, metrics_format))
    sink = pa.BufferOutputStream()
    pq.write_table(chunk.metrics, sink, compression="zstd")
    files.write_whole(files.metrics(chunk.chunk), sink.getvalue())


def read_chunk(chunk: Chunk, files: RunFiles) -> ScoredChunk:
    """Read back what `write_chunk` wrote."""
    with FileSystems.open(files.metrics(chunk), compression_type=CompressionTypes.UNCOMPRESSED) as file:
        metrics = pq.read_table(file)
    failures: tuple[Failure, ...] = ()
    if FileSystems.exists(files.failures(chunk)):
        with FileSystems.open(files.failures(chunk), compression_type=CompressionTypes.UNCOMPRESSED) as file:
            failures = tuple(Failure(**json.loads(line)) for line in file.read().splitlines())
    return ScoredChunk(chunk, metrics, failures)
