"""The values that travel between steps: chunk references, tables of encoded pairs, tables of metrics, failures."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from transforms.columns import Column
from transforms.settings import setting

# Keys of the metrics' schema metadata: the precision in which the networks computed; the run and the chunk of a file.
PRECISION_KEY = b"pairloss.precision"
CHUNK_KEY = b"pairloss.chunk"
# JSON list of the other files that were written with the metrics of a chunk, relative to the run's directory.
FILES_KEY = b"pairloss.files"
# The backend that computed the networks' features.
BACKEND_KEY = b"pairloss.backend"

# Reasons of failures of files that may be read another time. Their chunks are not done: a resumed run reads them.
NOT_DONE = {
    "unavailable": "the file, or this chunk of it, vanished or its store failed; the same command reads it again",
    "changed": "the file changed since it was listed; another run, into a directory of its own, reads the new one",
}


@dataclass(frozen=True)
class Fields:
    """Names of the record fields to read.

    Attributes:
        generated: field of the encoded generated image.
        target: field of the encoded target image.
        id: field of the pair's id. None: a field `id` if there is one, otherwise `Chunk.pair_id`.
        keep: scalar fields copied into the metrics.
        image_root: directory of the images that records name by relative paths; empty: that of the input file.
    """

    generated: str = setting("the encoded generated image", "generated", flag="generated_field", metavar="NAME")
    target: str = setting("the encoded target image", "target", flag="target_field", metavar="NAME")
    id: str | None = setting(
        "by default id if there is such a field, else <file below the pattern's fixed part>#<record number>",
        None,
        flag="id_field",
        metavar="NAME",
    )
    keep: tuple[str, ...] = setting(
        "scalar fields to copy into the metrics, comma-separated", (), flag="keep_fields", metavar="NAMES"
    )
    image_root: str = setting(
        "directory of the images if records name them by paths; by default that of the input file", "", metavar="DIR"
    )


class Part(NamedTuple):
    """Records of an input file that become a chunk.

    Attributes:
        pairs: number of records.
        place: where they lie in the file: a frozen dataclass of the file's format.
    """

    pairs: int
    place: Any


@dataclass(frozen=True)
class Chunk:
    """A contiguous range of records of one input file: the unit of work, of retry, of resuming and of output.

    Attributes:
        name: stem of the chunk's output files, unique within a run.
        path: the input file.
        format: a key of `reading.format.FORMATS`; empty if the file's format is unknown.
        start: number of the first record in the file.
        stop: number after the last record in the file.
        place: where the records lie in the file, as `Part.place`.
        error: why the file could not be listed; such a chunk has no records.
        reason: of the failure that stands for a file that could not be listed; empty: `unreadable_file`.
        label: what names the file in the ids of pairs that have none of their own.
        version: `InputFile.version` when the file was listed; empty: it is not compared.
        damage: why the files of an earlier try could not be used; empty: there were none.
    """

    name: str
    path: str
    format: str
    start: int
    stop: int
    place: Any = None
    error: str = ""
    reason: str = ""
    label: str = ""
    version: str = ""
    damage: str = ""

    @property
    def pairs(self) -> int:
        return self.stop - self.start

    def pair_id(self, number: int) -> str:
        """The id of a pair that has none of its own, unique within a run."""
        return f"{as_utf8(self.label or self.path.rpartition('/')[2])}#{number}"

    def source(self, number: int) -> str:
        """Where a record comes from."""
        return f"{as_utf8(self.path)}#{number}"


# Chunks of one file, in order, that one worker reads one after the other from the file opened once.
ChunkSeries = tuple[Chunk, ...]


@dataclass(frozen=True)
class Failure:
    """A record (or a whole file) that could not be scored: one row of the failures output.

    Attributes:
        id: the pair's id; the file's path for `scope="file"`.
        source: `<path>#<record number>`; `<path>` for `scope="file"`.
        stage: `list`, `pair`, `read`, `decode` or `score`.
        reason: stable machine-readable code, e.g. `truncated`.
        message: one line for people.
        sha256: of the offending bytes, hex; empty if there are none.
        bytes: number of the offending bytes.
        scope: `pair`, or `file` for a file (or a chunk's part of one) that could not be read at all.
    """

    id: str
    source: str
    stage: str
    reason: str
    message: str
    sha256: str = ""
    bytes: int = 0
    scope: str = "pair"


MAX_MESSAGE = 500


def as_utf8(path: str) -> str:
    """A path as text that can be written: bytes of a file name that are not UTF-8 come out escaped."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def pair_failure(id: str, source: str, stage: str, reason: str, message: str, data: bytes | None = None) -> Failure:
    """Make the failure of one pair, with the hash and size of the offending bytes and the message cut to one line."""
    line = " ".join(message.split())[:MAX_MESSAGE]
    digest = hashlib.sha256(data).hexdigest() if data is not None else ""
    return Failure(id, source, stage, reason, line, digest, len(data or b""))


@dataclass(frozen=True)
class EncodedChunk:
    """The records of a chunk as they lie in the file.

    Attributes:
        chunk: the chunk they belong to.
        pairs: table of `encoded_schema`, in file order; images that repeat may be dictionaries of `binary`; a last
            column `notes` if there is something to note.
        failures: the records that could not be read, or the one file failure.
    """

    chunk: Chunk
    pairs: pa.Table
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class ScoredChunk:
    """The result of a chunk.

    Attributes:
        chunk: the chunk the pairs belong to.
        metrics: table of `metrics_schema`, in file order.
        failures: every record that has no row in `metrics`.
        optimized: table of `OPTIMIZED_SCHEMA` if the run optimizes.
        optimized_files: number of files with optimized images, once they are written.
    """

    chunk: Chunk
    metrics: pa.Table
    failures: tuple[Failure, ...] = ()
    optimized: pa.Table | None = None
    optimized_files: int = 0

    @property
    def done(self) -> bool:
        """False if the chunk must be read another time."""
        return not any(failure.scope == "file" and failure.reason in NOT_DONE for failure in self.failures)


def encoded_schema(keep: Sequence[pa.Field] = ()) -> pa.Schema:
    """Schema of a table of encoded pairs. Images may be null: decoding reports them."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("generated", pa.binary()),
            pa.field("target", pa.binary()),
            *keep,
        ]
    )


def metrics_schema(columns: Sequence[Column], keep: Sequence[pa.Field] = ()) -> pa.Schema:
    """Schema of a table of metrics: one float32 column per loss, null if undefined for the pair (see `notes`)."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
            pa.field("width", pa.int32(), nullable=False),
            *keep,
            *(column.field(pa.float32()) for column in columns),
            pa.field("notes", pa.list_(pa.string()), nullable=False),
        ]
    )


OPTIMIZED_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
    ]
)


def optimization_fields(columns: Sequence[Column], trace: bool) -> tuple[pa.Field, ...]:
    """The fields that optimizing adds to the metrics; null for a pair that was not optimized.

    Args:
        columns: `Plan.optimization_columns`.
        trace: whether the objective of every n-th step is kept.
    """
    fields = {column: column.field(pa.int32() if column.name == "steps" else pa.float32()) for column in columns}
    curve = pa.list_(pa.struct([("step", pa.int32()), ("objective", pa.float32())]))
    return (
        *(fields[column] for column in columns if not column.loss),
        pa.field("stop_reason", pa.string()),
        *(fields[column] for column in columns if column.loss),
        *((pa.field("trace", curve),) if trace else ()),
    )
