"""From input patterns to chunks: find files, tell their format, check their fields, list their records."""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import apache_beam as beam
import pyarrow as pa
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from transforms.reading import parquet, tfrecord, tfrecord_container
from transforms.reading.fields import check_schema
from transforms.schema import FORMATS, Chunk, ChunkSeries, Fields
from transforms.storage.errors import READ_ERRORS, describe
from transforms.worker.counters import count

INPUT_FORMATS = ("auto", *FORMATS)
CHUNK_PAIRS = 256
CHUNK_BYTES = 256 << 20

_MAX_SLUG = 80
_PARQUET_MAGIC = b"PAR1"
_PARQUET_NAME = re.compile(r"\.(parquet|pq)$", re.IGNORECASE)
_TFRECORD_NAME = re.compile(r"\.(tfrecords?|tfrec|tfr)(-\d+-of-\d+)?(\.gz)?$", re.IGNORECASE)
_CHUNK_RANGE = re.compile(r"-(\d{9,})-(\d{9,})\.\w+$")


@dataclass(frozen=True, order=True)
class InputFile:
    """A file to score.

    Attributes:
        path: local or `gs://`.
        size: bytes.
        modified: seconds since the epoch; 0 where the file system does not tell.
    """

    path: str
    size: int
    modified: float


def match_files(patterns: Sequence[str]) -> list[InputFile]:
    """The files that the patterns match, sorted by path, each once.

    `*` and `?` stay inside a directory, `**` crosses directories.

    Raises:
        ValueError: a pattern matches nothing, is a directory, or cannot be looked up.
    """
    files: dict[str, InputFile] = {}
    for pattern in patterns:
        try:
            found = _match(pattern)
            is_directory = os.path.isdir(pattern) or (not found and _match(f"{pattern.rstrip('/')}/*"))
        except READ_ERRORS as error:
            raise ValueError(f"input {pattern!r} cannot be looked up: {describe(error)}") from error
        if is_directory:
            raise ValueError(
                f"input {pattern!r} is a directory: name its files, e.g. '{pattern.rstrip('/')}/*.parquet'"
            )
        if not found:
            raise ValueError(f"input {pattern!r} matches no file")
        files.update((file.path, file) for file in found)
    return sorted(files.values())


def open_input(path: str) -> BinaryIO:
    """Open a local or `gs://` file for reading as it is, without unpacking. Raises one of `READ_ERRORS`."""
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


def detect_format(path: str, input_format: str = "auto") -> str:
    """`parquet` or `tfrecord`: as given, else by the extension, else by the content.

    Raises:
        ValueError: neither the name nor the content tells.
        READ_ERRORS: the file had to be opened and could not be.
    """
    if input_format != "auto":
        return input_format
    if _PARQUET_NAME.search(path):
        return "parquet"
    if _TFRECORD_NAME.search(path):
        return "tfrecord"
    with open_input(path) as file:
        if file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC:
            return "parquet"
        if tfrecord_container.is_tfrecord(file):
            return "tfrecord"
    raise ValueError(f"{path} is neither Parquet nor TFRecord, by its name and by its content")


def check_fields(path: str, format: str, fields: Fields) -> tuple[pa.Field, ...] | None:
    """Check on the launcher that a file holds the fields asked for; of a TFRecord, that its first records do.

    Returns:
        The kept fields as they are in the metrics of every chunk. None: the file cannot tell, for it is
        damaged, or a TFRecord without a good record at its beginning: ask the next file.

    Raises:
        ValueError: one line with every field that is missing or unusable, and the fields found.
    """
    try:
        with open_input(path) as file:
            schema = parquet.read_schema(file) if format == "parquet" else tfrecord.read_schema(file, fields)
    except READ_ERRORS:
        return None
    if schema is None:
        return None
    try:
        return check_schema(schema, fields)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def list_chunks(
    file: InputFile,
    input_format: str,
    fields: Fields,
    chunk_pairs: int = CHUNK_PAIRS,
    chunk_bytes: int = CHUNK_BYTES,
) -> Iterator[ChunkSeries]:
    """Cut a file into chunks of at most `chunk_pairs` records and about `chunk_bytes` bytes.

    A series is what one worker best reads in one go: mostly one chunk; neighbouring chunks of a large Parquet
    row group; all chunks of a gzipped TFRecord, which can only be read from its beginning. Every file comes
    out: a valid one without records (a TFRecord of 0 bytes is one) as a chunk of 0 records, one that cannot
    be listed to its end as a last chunk of 0 records that says why in `error`.
    """
    format = input_format if input_format != "auto" else ""
    listed = 0
    try:
        format = detect_format(file.path, input_format)
        with open_input(file.path) as opened:
            list_series = _list_parquet if format == "parquet" else _list_tfrecord
            for series in list_series(file.path, opened, fields, chunk_pairs, chunk_bytes):
                listed = series[-1].stop
                yield series
        if not listed:
            yield (_chunk(file.path, format, 0, 0),)
    except (*READ_ERRORS, ValueError) as error:
        yield (_chunk(file.path, format, listed, listed, error=describe(error)),)


def _match(pattern: str) -> list[InputFile]:
    (result,) = FileSystems.match([pattern])
    # An object store may hold an empty object that stands for a directory.
    return [
        InputFile(found.path, found.size_in_bytes, found.last_updated_in_seconds)
        for found in result.metadata_list
        if not found.path.endswith("/")
    ]


def _list_parquet(
    path: str, file: BinaryIO, fields: Fields, chunk_pairs: int, chunk_bytes: int
) -> Iterator[ChunkSeries]:
    check_schema(parquet.read_schema(file), fields)
    for ranges in parquet.list_rows(file, fields, chunk_pairs, chunk_bytes):
        yield tuple(
            _chunk(path, "parquet", r.first, r.first + r.stop - r.start, r.row_group, (r.start, r.stop)) for r in ranges
        )


def _list_tfrecord(
    path: str, file: BinaryIO, fields: Fields, chunk_pairs: int, chunk_bytes: int
) -> Iterator[ChunkSeries]:
    """Fields differ between records, so they are checked when records are read."""
    source = tfrecord_container.open_source(file)
    chunks = _cut(path, tfrecord_container.find_spans(source), chunk_pairs, chunk_bytes)
    if isinstance(source, tfrecord_container.PlainSource):
        yield from ((chunk,) for chunk in chunks)
    elif series := tuple(chunks):
        yield series


def _cut(path: str, spans: Iterator[tfrecord_container.Span], chunk_pairs: int, chunk_bytes: int) -> Iterator[Chunk]:
    first = stop = 0
    begin = end = 0
    for span in spans:
        if stop > first and (stop - first == chunk_pairs or span.stop - begin > chunk_bytes):
            yield _chunk(path, "tfrecord", first, stop, span=(begin, end))
            first, begin = stop, end
        stop, end = stop + 1, span.stop
    if stop > first:
        yield _chunk(path, "tfrecord", first, stop, span=(begin, end))


def _chunk(
    path: str,
    format: str,
    start: int,
    stop: int,
    row_group: int = -1,
    span: tuple[int, int] = (0, 0),
    error: str = "",
) -> Chunk:
    return Chunk(_chunk_name(path, start, stop), path, format, start, stop, row_group, span, error)


def _chunk_name(path: str, start: int, stop: int) -> str:
    """File-name safe; tells file and records; the hash of the path keeps files of one base name apart."""
    base = path.rpartition("/")[2]
    stem = _PARQUET_NAME.sub("", _TFRECORD_NAME.sub(r"\2", base))
    # Readers of a directory of Parquet files skip names that begin with a dot or an underscore.
    slug = re.sub(r"[^A-Za-z0-9._-]+", "_", stem)[:_MAX_SLUG].lstrip("._-") or "file"
    digest = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{slug}-{digest}-{start:09d}-{stop:09d}"


def pairs_of_file(path: str) -> int:
    """How many pairs the chunk has whose file this is, by its name; 0: it is no chunk's."""
    found = _CHUNK_RANGE.search(path)
    return int(found[2]) - int(found[1]) if found else 0


@dataclass(eq=False)
class ListChunks(beam.PTransform):
    """InputFile -> ChunkSeries, by `list_chunks`. The caller reshuffles them.

    Attributes:
        fields: the fields to read.
        chunk_pairs: most records of a chunk.
        input_format: `auto`, `parquet` or `tfrecord`.
        chunk_bytes: about the most bytes of a chunk.
    """

    fields: Fields
    chunk_pairs: int = CHUNK_PAIRS
    input_format: str = "auto"
    chunk_bytes: int = CHUNK_BYTES

    def __post_init__(self) -> None:
        super().__init__()
        if self.input_format not in INPUT_FORMATS:
            raise ValueError(f"input_format is {self.input_format!r}, not one of {', '.join(INPUT_FORMATS)}")
        if self.chunk_pairs < 1 or self.chunk_bytes < 1:
            raise ValueError(f"chunk_pairs and chunk_bytes are {self.chunk_pairs} and {self.chunk_bytes}, not positive")

    def expand(self, files: beam.PCollection[InputFile]) -> beam.PCollection[ChunkSeries]:
        return files | beam.ParDo(
            _List(self.fields, self.input_format, self.chunk_pairs, self.chunk_bytes)
        ).with_output_types(ChunkSeries)


@dataclass(eq=False)
class _List(beam.DoFn):
    fields: Fields
    input_format: str
    chunk_pairs: int
    chunk_bytes: int

    def process(self, file: InputFile) -> Iterator[ChunkSeries]:
        for series in list_chunks(file, self.input_format, self.fields, self.chunk_pairs, self.chunk_bytes):
            count("chunks_listed", len(series))
            count("pairs_listed", sum(chunk.pairs for chunk in series))
            yield series
