"""The values that travel between steps: references to chunks, tables of encoded pairs, tables of metrics."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from transforms.columns import Column
from transforms.failure import NOT_DONE, Failure, as_utf8
from transforms.settings import setting
from transforms.work import Work

# Types of arrays that records may hold as bytes.
ARRAY_TYPES = ("uint8", "uint16", "float16", "float32", "float64")

# Keys of the metrics' schema metadata: the precision in which the networks computed; the run and the chunk of a file.
PRECISION_KEY = b"pairloss.precision"
CHUNK_KEY = b"pairloss.chunk"
# JSON list of the other files that were written with the metrics of a chunk, relative to the run's directory.
FILES_KEY = b"pairloss.files"
# How many pairs of the chunk were taken over from an earlier run; not there if none were.
REUSED_KEY = b"pairloss.reused"
# There if the records of the chunk name images in other files.
NAMES_FILES_KEY = b"pairloss.names_files"
# The backend that computed the networks' features, and the kind of device.
BACKEND_KEY = b"pairloss.backend"
DEVICE_KEY = b"pairloss.device"
# Between the values of a chunk whose rows are of several runs.
SEVERAL = b", "


@dataclass(frozen=True)
class Fields:
    """Names of the record fields to read.

    Attributes:
        generated: field of the encoded generated image; of several, each holds a candidate of the target.
        target: field of the encoded target image.
        id: field of the pair's id. None: a field `id` if there is one, otherwise `Chunk.pair_id`.
        keep: scalar fields copied into the metrics.
        image_root: directory of the images that records name by relative paths; empty: that of the input file.
        allow_http: whether images at http(s) addresses that records name are fetched.
        array_shape: of arrays in records, such as `256,256,3`; empty: nested lists tell theirs.
        array_type: NumPy's name of the type of arrays that are bytes; empty: bytes are image files.
        mask: field of the encoded image that says which pixels count; empty: all count.
    """

    generated: tuple[str, ...] = setting(
        "the encoded generated image; several, comma-separated, are candidates of one target: a row each, which the "
        "column candidate names",
        ("generated",),
        flag="generated_field",
        flag_default="generated",
        metavar="NAMES",
    )
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
    allow_http: bool = setting(
        "fetch the images of records that name them by http:// or https:// addresses; without it they fail", False
    )
    array_shape: str = setting(
        "shape of arrays in records, such as 256,256,3, if they are flat; see --range", "", metavar="H,W,C"
    )
    array_type: str = setting(
        "type of arrays that are stored as bytes, little-endian", "", choices=ARRAY_TYPES, metavar="|".join(ARRAY_TYPES)
    )
    mask: str = setting(
        "an image that says which pixels count: those brighter than the middle of its range",
        "",
        flag="mask_field",
        metavar="NAME",
    )

    @property
    def shape(self) -> tuple[int, ...]:
        """`array_shape` as numbers. Raises ValueError if it is none."""
        numbers = tuple(int(number) for number in self.array_shape.split(",") if self.array_shape)
        if self.array_shape and (len(numbers) not in (2, 3) or min(numbers) < 1):
            raise ValueError(f"{self.array_shape!r} is not a shape such as 256,256,3")
        return numbers

    @property
    def images(self) -> tuple[str, ...]:
        """The names of the fields of images, each once."""
        return tuple(dict.fromkeys((*self.generated, self.target, *([self.mask] if self.mask else []))))

    @property
    def has_candidates(self) -> bool:
        """True if every record holds several generated images."""
        return len(self.generated) > 1


class Part(NamedTuple):
    """Records of an input file that become a chunk.

    Attributes:
        records: number of records.
        place: where they lie in the file: a frozen dataclass of the file's format.
    """

    records: int
    place: Any


@dataclass(frozen=True)
class Chunk:
    """A contiguous range of records of one input file: the unit of work, of retry, of resuming and of output.

    Attributes:
        name: stem of the chunk's output files, unique within a run.
        path: the input file.
        format: a key of `reading.format.FORMATS`; empty if the file's format is unknown.
        start: number of the first pair in the file. A record with k candidates counts as k pairs.
        stop: number after the last pair in the file.
        place: where the records lie in the file, as `Part.place`.
        error: why the file could not be listed; such a chunk has no records.
        reason: of the failure that stands for a file that could not be listed; empty: `unreadable_file`.
        label: what names the file in the ids of pairs that have none of their own.
        version: `InputFile.version` when the file was listed; empty: it is not compared.
        damage: why the files of an earlier try could not be used; empty: there were none.
        retried: sources of the pairs that are scored, if an earlier run's result of the others is taken over; empty:
            all are scored.
        names_files: whether its records name images in other files, of whose changes `version` knows nothing; found out
            when it is read.
        listing_seconds: how long a worker took to find it, and those that came with it.
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
    retried: Set[str] = frozenset()
    names_files: bool = False
    listing_seconds: float = field(default=0.0, compare=False)

    @property
    def pairs(self) -> int:
        return self.stop - self.start

    def records(self, fields: Fields) -> range:
        """The numbers of its records in the file."""
        return range(self.start // len(fields.generated), self.stop // len(fields.generated))

    def pair_id(self, number: int) -> str:
        """The id of a record that has none of its own, unique within a run."""
        return f"{as_utf8(self.label or self.path.rpartition('/')[2])}#{number}"

    def source(self, number: int) -> str:
        """Where a pair comes from."""
        return f"{as_utf8(self.path)}#{number}"


# Chunks of one file, in order, that one worker reads one after the other from the file opened once.
ChunkSeries = tuple[Chunk, ...]


@dataclass(frozen=True)
class EncodedChunk:
    """The records of a chunk as they lie in the file.

    Attributes:
        chunk: the chunk they belong to.
        pairs: table of `encoded_schema`, in file order; images that repeat may be dictionaries of `binary`; a last
            column `notes` if there is something to note.
        failures: the records that could not be read, or the one file failure.
        work: what it has taken so far.
    """

    chunk: Chunk
    pairs: pa.Table
    failures: tuple[Failure, ...] = ()
    work: Work = field(default=Work(), compare=False)


@dataclass(frozen=True)
class ScoredChunk:
    """The result of a chunk.

    Attributes:
        chunk: the chunk the pairs belong to.
        metrics: table of `metrics_schema`, in file order.
        failures: every record that has no row in `metrics`.
        optimized: table of `OPTIMIZED_SCHEMA` if the run optimizes.
        optimized_files: those with its optimized images, once they are written, relative to the run's directory.
        reused: number of pairs that were taken over from an earlier run.
        work: what it has taken in this launch of the run.
    """

    chunk: Chunk
    metrics: pa.Table
    failures: tuple[Failure, ...] = ()
    optimized: pa.Table | None = None
    optimized_files: tuple[str, ...] = ()
    reused: int = 0
    work: Work = field(default=Work(), compare=False)

    @property
    def done(self) -> bool:
        """False if the chunk must be read another time."""
        return not any(failure.scope == "file" and failure.reason in NOT_DONE for failure in self.failures)


def encoded_schema(keep: Sequence[pa.Field] = (), masked: bool = False) -> pa.Schema:
    """Schema of a table of encoded pairs, with masks or without. Images may be null: decoding reports them."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("generated", pa.binary()),
            pa.field("target", pa.binary()),
            *([pa.field("mask", pa.binary())] if masked else []),
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
