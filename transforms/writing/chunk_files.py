"""Write the files of a chunk, whole or not at all and under the same names on every try, and read them back."""

import json
from collections.abc import Iterable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from threading import Lock

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystems import FileSystems

from transforms.failure import Failure
from transforms.schema import CHUNK_KEY, FILES_KEY, NAMES_FILES_KEY, REUSED_KEY, Chunk, ScoredChunk
from transforms.storage.errors import READ_ERRORS, describe
from transforms.storage.run_files import RunFiles, delete_file, list_files
from transforms.storage.whole_files import read_file
from transforms.writing.metrics_text import TEXT_FORMATS
from transforms.writing.optimized_images import OPTIMIZED_FORMATS

# Most of the time of asking an object store is waiting.
_THREADS = 16
# So many does a store list at once.
_NAMES_PER_REQUEST = 1000


def chunk_directories(files: RunFiles) -> tuple[str, ...]:
    """The directories of a run that hold the files of chunks."""
    text = map(files.metrics_text_directory, TEXT_FORMATS)
    return files.metrics_directory, *text, files.failures_directory, files.optimized_directory


class ChangedOutputError(Exception):
    """Files of a run vanished, or others came among them, while it was at work."""


class DamagedChunkError(Exception):
    """The files of a chunk that an earlier try has written cannot be used."""


class WrittenChunks:
    """Tells which chunks of a run have metrics, with few requests to a store.

    It asks for each chunk until a listing of the directory would have taken no more requests, and then lists it. The
    listing answers until `forget`.

    Args:
        files: the run's files.
    """

    def __init__(self, files: RunFiles) -> None:
        self._files = files
        self._size = 0
        self._lock = Lock()
        self.forget()

    def forget(self) -> None:
        """Look again: another worker may have written chunks in the meantime."""
        self._names: Set[str] | None = None
        self._asked = 0

    def __contains__(self, chunk: Chunk) -> bool:
        # Threads that ask at the same time wait for one listing.
        with self._lock:
            if self._names is None and self._asked * _NAMES_PER_REQUEST >= self._size:
                self._names = _names(self._files.metrics_directory)
                self._size = len(self._names)
        if self._names is not None:
            return chunk.name in self._names
        self._asked += 1
        return FileSystems.exists(self._files.metrics(chunk))


def find_done(
    series: Iterable[Chunk], files: RunFiles, fingerprint: str = "", written: WrittenChunks | None = None
) -> Iterator[Chunk | ScoredChunk]:
    """Yield each chunk: with its result if an earlier try has done it, else as it is still to do.

    A result that cannot be used is not done; `Chunk.damage` says why.

    Args:
        series: the chunks.
        files: of the run that may have done them.
        fingerprint: of that run.
        written: tells which of them have metrics; None: look for each.
    """
    for chunk in series:
        if chunk not in written if written else not FileSystems.exists(files.metrics(chunk)):
            yield chunk
            continue
        try:
            scored = read_chunk(chunk, files, fingerprint)
            _check_whole(scored)
        except DamagedChunkError as error:
            yield replace(chunk, damage=str(error))
        else:
            yield scored


def write_chunk(
    chunk: ScoredChunk,
    files: RunFiles,
    metrics_format: str = "parquet",
    optimized_format: str = "parquet",
    fingerprint: str = "",
) -> ScoredChunk:
    """Write the chunk's optimized images, its failures and its metrics as text, then its metrics.

    A chunk that is not done leaves only its failures.

    Args:
        chunk: the result to write.
        files: the run's files.
        metrics_format: a key of `TEXT_FORMATS` to write metrics as text beside Parquet; `parquet` for Parquet alone.
        optimized_format: a key of `OPTIMIZED_FORMATS`.
        fingerprint: of the run.

    Returns:
        the chunk without its images.
    """
    name = chunk.chunk.name
    optimized = {} if chunk.optimized is None else OPTIMIZED_FORMATS[optimized_format](chunk.optimized, name)
    for file, content in optimized.items():
        files.write_whole(FileSystems.join(files.optimized_directory, file), content)
    images = tuple(f"optimized/{file}" for file in optimized) or chunk.optimized_files
    others = [*images]
    written = replace(chunk, optimized=None, optimized_files=images)
    failures = files.failures(chunk.chunk)
    if chunk.failures:
        lines = "".join(json.dumps(asdict(failure)) + "\n" for failure in chunk.failures)
        files.write_whole(failures, lines.encode())
    else:
        # An earlier try may have written failures and ended before its metrics; what failed then has now worked.
        delete_file(failures)
    if not chunk.done:
        # An earlier try may have left a damaged one.
        delete_file(files.metrics(chunk.chunk))
        return written
    if metrics_format in TEXT_FORMATS:
        path = FileSystems.join(files.metrics_text_directory(metrics_format), f"{name}.{metrics_format}")
        files.write_whole(path, TEXT_FORMATS[metrics_format](chunk.metrics).encode())
        others.append(f"metrics_{metrics_format}/{name}.{metrics_format}")
    sink = pa.BufferOutputStream()
    metadata = {**(chunk.metrics.schema.metadata or {}), CHUNK_KEY: _mark(chunk.chunk, fingerprint)}
    metadata |= {FILES_KEY: json.dumps(others).encode()} if others else {}
    metadata |= {REUSED_KEY: str(chunk.reused).encode()} if chunk.reused else {}
    metadata |= {NAMES_FILES_KEY: b"true"} if chunk.chunk.names_files else {}
    pq.write_table(chunk.metrics.replace_schema_metadata(metadata), sink, compression="zstd")
    files.write_whole(files.metrics(chunk.chunk), sink.getvalue())
    return written


def read_chunk(chunk: Chunk, files: RunFiles, fingerprint: str = "") -> ScoredChunk:
    """Read back the metrics and failures that `write_chunk` wrote.

    Raises:
        DamagedChunkError: they cannot be read, belong to another chunk or run, or files written with them are gone.
    """
    try:
        metrics = pq.ParquetFile(pa.BufferReader(read_file(files.metrics(chunk)))).read()
        failures: tuple[Failure, ...] = ()
        # A store need not be asked where no pair is missing.
        if (chunk.error or len(metrics) < chunk.pairs) and FileSystems.exists(files.failures(chunk)):
            failures = tuple(Failure(**json.loads(line)) for line in read_file(files.failures(chunk)).splitlines())
    except (*READ_ERRORS, ValueError, TypeError) as error:
        raise DamagedChunkError(f"its files cannot be read: {describe(error)}") from error
    metadata = dict(metrics.schema.metadata or {})
    if metadata.pop(CHUNK_KEY, b"") != _mark(chunk, fingerprint):
        raise DamagedChunkError("its metrics are those of another chunk or run")
    others: list[str] = json.loads(metadata.pop(FILES_KEY, b"[]"))
    with ThreadPoolExecutor(_THREADS, "find_file") as pool:
        exist = list(pool.map(FileSystems.exists, (FileSystems.join(files.output, other) for other in others)))
    if not all(exist):
        raise DamagedChunkError(f"{others[exist.index(False)]} is gone")
    images = tuple(other for other in others if other.startswith("optimized/"))
    reused = int(metadata.pop(REUSED_KEY, 0))
    chunk = replace(chunk, names_files=metadata.pop(NAMES_FILES_KEY, None) is not None)
    metrics = metrics.replace_schema_metadata(metadata)
    return ScoredChunk(chunk, metrics, failures, optimized_files=images, reused=reused)


def check_listing(files: RunFiles, done: Set[str], failed: Set[str], optimized: int = 0) -> None:
    """Check that the files of every chunk lie in the run's directory, and no others.

    Failures of chunks that are not part of the run, such as those of a file that could not be listed once, are deleted.

    Args:
        files: the run's files.
        done: names of the chunks with metrics.
        failed: names of the chunks with failures.
        optimized: number of files with optimized images.

    Raises:
        ChangedOutputError: files are missing or in the way.
    """
    failures = _names(files.failures_directory)
    for stale in failures - failed:
        delete_file(FileSystems.join(files.failures_directory, f"{stale}.jsonl"))
    problems = _problems(files.failures_directory, failed - failures, set())
    directories = [files.metrics_directory, *map(files.metrics_text_directory, TEXT_FORMATS)]
    for directory in directories:
        if (found := _names(directory)) or directory == files.metrics_directory:
            problems += _problems(directory, done - found, found - done)
    found_images = sum(1 for _ in list_files(files.optimized_directory)) if optimized else 0
    if found_images < optimized:
        problems.append(f"{optimized - found_images} of {optimized} files vanished from {files.optimized_directory}")
    if problems:
        raise ChangedOutputError("; ".join(problems))


def _check_whole(scored: ScoredChunk) -> None:
    pairs, metrics, failures = scored.chunk.pairs, len(scored.metrics), len(scored.failures)
    unreadable = any(failure.scope == "file" for failure in scored.failures)
    if not unreadable and metrics + failures != pairs:
        raise DamagedChunkError(f"of {pairs} pairs, {metrics} metrics and {failures} failures are left")


def _names(directory: str) -> set[str]:
    return {path.replace("\\", "/").rpartition("/")[2].rpartition(".")[0] for path in list_files(directory)}


def _problems(directory: str, missing: Set[str], strange: Set[str]) -> list[str]:
    texts = []
    if missing:
        texts.append(f"files of {len(missing)} chunks vanished from {directory}, such as {min(missing)}")
    if strange:
        texts.append(f"{directory} holds {len(strange)} files of no chunk, such as {min(strange)}: remove them")
    return texts


def _mark(chunk: Chunk, fingerprint: str) -> bytes:
    return f"{chunk.name} {fingerprint}".encode()
