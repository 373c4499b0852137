"""Write the result of a chunk: whole files or none, under the same names on every try."""

import glob
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.io.localfilesystem import LocalFileSystem
from apache_beam.pvalue import TaggedOutput

from transforms.counters import count
from transforms.schema import Chunk, ChunkSeries, Failure, ScoredChunk

# Tags of the outputs of SplitDone.
TO_DO, DONE = "to_do", "done"


@dataclass(frozen=True)
class RunFiles:
    """The files of a run below its output directory, local or `gs://`."""

    output: str

    @property
    def config(self) -> str:
        return FileSystems.join(self.output, "run.json")

    @property
    def summary(self) -> str:
        return FileSystems.join(self.output, "summary.json")

    @property
    def success(self) -> str:
        return FileSystems.join(self.output, "_SUCCESS")

    @property
    def temporary(self) -> str:
        return FileSystems.join(self.output, "_temporary")

    @property
    def chunk_directories(self) -> tuple[str, ...]:
        """The directories that hold one file per chunk."""
        return self.metrics_directory, self.failures_directory

    @property
    def metrics_directory(self) -> str:
        return FileSystems.join(self.output, "metrics")

    @property
    def failures_directory(self) -> str:
        return FileSystems.join(self.output, "failures")

    def metrics(self, chunk: Chunk) -> str:
        """The chunk's metrics. Written last of its files: a chunk is done when this one is there."""
        return FileSystems.join(self.metrics_directory, f"{chunk.name}.parquet")

    def failures(self, chunk: Chunk) -> str:
        """The chunk's failures; there is no such file where there are none."""
        return FileSystems.join(self.failures_directory, f"{chunk.name}.jsonl")

    def write_whole(self, path: str, content: bytes) -> None:
        """Write a file so that it is there whole or not at all, replacing an older one.

        Raises:
            OSError: it could not be written or renamed; the temporary file is gone then, where that is possible.
        """
        temporary = FileSystems.join(self.temporary, uuid.uuid4().hex)
        try:
            with FileSystems.create(temporary, compression_type=CompressionTypes.UNCOMPRESSED) as file:
                file.write(content)
            _make_parent(path)
            FileSystems.rename([temporary], [path])
        except OSError:
            delete_file(temporary)
            raise


@dataclass(eq=False)
class SplitDone(beam.DoFn):
    """ChunkSeries -> its chunks still to do (main output), and, tagged `DONE`, each whose files are there already.

    Attributes:
        files: the files of the run.
    """

    files: RunFiles

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
    """ScoredChunk -> the same, once its files are written."""

    output: str

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, chunks: beam.PCollection) -> beam.PCollection:
        return chunks | "Write" >> beam.ParDo(_Write(RunFiles(self.output)))


@dataclass(eq=False)
class _Write(beam.DoFn):
    files: RunFiles

    def process(self, chunk: ScoredChunk) -> Iterable[ScoredChunk]:
        write_chunk(chunk, self.files)
        count("chunks_written")
        count("pairs_scored", len(chunk.metrics))
        count("pairs_failed", sum(failure.scope == "pair" for failure in chunk.failures))
        yield chunk


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


def write_chunk(chunk: ScoredChunk, files: RunFiles) -> None:
    """Write the chunk's failures, then its metrics."""
    failures = files.failures(chunk.chunk)
    if chunk.failures:
        lines = "".join(json.dumps(asdict(failure)) + "\n" for failure in chunk.failures)
        files.write_whole(failures, lines.encode())
    else:
        # Of an earlier try that ended before its metrics: what failed then, a network perhaps, works now.
        delete_file(failures)
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


# Beam lists and deletes by pattern alone. Its patterns miss local directories whose path holds `[`, `*` or `?`, even
# escaped; so local paths are left to Python.


def list_files(directory: str, deep: bool = False) -> Iterator[str]:
    """The files in a directory, if it is there, local or `gs://`; `deep`: and in those below it."""
    if _is_local(directory):
        found = Path(directory).glob("**/*" if deep else "*")
        yield from (FileSystems.join(directory, path.relative_to(directory)) for path in found if not path.is_dir())
        return
    pattern = FileSystems.join(glob.escape(directory), "**" if deep else "*")
    yield from (metadata.path for metadata in FileSystems.match([pattern])[0].metadata_list)


def delete_file(path: str) -> None:
    """Delete a file, local or `gs://`, if it is there."""
    if not FileSystems.exists(path):
        return
    if _is_local(path):
        os.remove(path)
    else:
        FileSystems.delete([glob.escape(path)])


def delete_directory(path: str) -> None:
    """Delete a directory, if it is there, and what is in it, local or `gs://`, where it is but a prefix."""
    if _is_local(path):
        if os.path.isdir(path):
            shutil.rmtree(path)
    elif inside := list(list_files(path, deep=True)):
        FileSystems.delete([glob.escape(file) for file in inside])


def _is_local(path: str) -> bool:
    return isinstance(FileSystems.get_filesystem(path), LocalFileSystem)


def _make_parent(path: str) -> None:
    parent = FileSystems.split(path)[0]
    if not FileSystems.exists(parent):
        try:
            FileSystems.mkdirs(parent)
        except OSError:
            # Another worker made it in between, which is as good; object stores have no directories.
            if not FileSystems.exists(parent):
                raise
