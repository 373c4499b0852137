"""The input formats: what each provides, the table of all of them, and the names of chunks.

To add a format, write its functions in a file of its own and add a row to `FORMATS`.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pyarrow as pa

from transforms.reading import (
    folders,
    image_paths,
    manifest,
    parquet,
    parquet_cutting,
    parquet_file,
    tfrecord,
    webdataset,
)
from transforms.reading.lines import LineRange
from transforms.schema import Chunk, EncodedChunk, Fields, Part

# The input format that is detected from the name or the content of each file.
AUTO = "auto"

# The listing of two folders' pairs, which the launcher makes; nobody asks for it.
LISTING = "listing"

_MAX_SLUG = 80
_EXTENSION = re.compile(r"\.\w+(-\d+-of-\d+)?(\.gz)?$")
_CHUNK_RANGE = re.compile(r"-(\d{9,})-(\d{9,})\.\w+$")


@dataclass(frozen=True)
class Format:
    """The functions that read one kind of file.

    They are functions of a module, for it is the child processes of a sandbox that find and run them, all but `claims`.
    They get the file opened for binary reading, seekable. On a damaged file they raise one of
    `storage.errors.READ_ERRORS`; `list` may also raise a ValueError. The error's message becomes that of a failure.

    Attributes:
        claims: `(path, head)`: says whether a file is of this format. At first `head` is empty and the name decides; if
            no format claims the file, all are asked again with its first bytes.
        schema: `(file, fields)`: the fields of the records in Arrow's types, so that the launcher can check them before
            the run starts; None if the file holds no good record.
        list: `(file, fields, chunk_pairs, chunk_bytes)`: cuts the file, in order and without gaps, into parts of at
            most `chunk_pairs` records and about `chunk_bytes` bytes. It yields series of parts; one worker reads a
            series from the file opened once. `Part.place` is of the class `place`.
        read: `(file, series, fields, keep)`: reads consecutive chunks and yields an `EncodedChunk` for each, in order.
            Records that cannot be read become failures, so that pairs + failures == `chunk.pairs`.
        place: a frozen dataclass of numbers and strings that says where a part lies in the file.
        reasons: the `reason` codes that only failures of this format have, with their meanings.
    """

    claims: Callable[[str, bytes], bool]
    schema: Callable[[BinaryIO, Fields], pa.Schema | None]
    list: Callable[[BinaryIO, Fields, int, int], Iterator[Sequence[Part]]]
    read: Callable[[BinaryIO, Sequence[Chunk], Fields, Sequence[pa.Field]], Iterator[EncodedChunk]]
    place: type[Any]
    reasons: Mapping[str, str] = field(default_factory=dict)


FORMATS = {
    "parquet": Format(
        *(parquet.claims, parquet.read_schema, parquet_cutting.list_rows, parquet.read_rows),
        *(parquet_file.RowRange, image_paths.REASONS),
    ),
    "tfrecord": Format(
        *(tfrecord.claims, tfrecord.read_schema, tfrecord.list_records, tfrecord.read_records),
        *(tfrecord.ByteRange, tfrecord.REASONS),
    ),
    "csv": Format(
        *(manifest.claims_csv, manifest.read_csv_schema, manifest.list_csv, manifest.read_csv),
        *(LineRange, manifest.REASONS),
    ),
    "jsonl": Format(
        *(manifest.claims_jsonl, manifest.read_jsonl_schema, manifest.list_jsonl, manifest.read_jsonl),
        *(LineRange, manifest.REASONS),
    ),
    "tar": Format(
        *(webdataset.claims, webdataset.read_schema, webdataset.list_samples, webdataset.read_samples),
        *(webdataset.SampleRange, webdataset.REASONS),
    ),
    LISTING: Format(
        *(folders.claims, folders.read_schema, folders.list_pairs, folders.read_listed),
        *(LineRange, folders.REASONS),
    ),
}


def format_names() -> tuple[str, ...]:
    """The formats that a user may name."""
    return tuple(name for name in FORMATS if name != LISTING)


def chunk_name(path: str, format: str, start: int, stop: int) -> str:
    """Name a chunk after its file and its records, safe as a file name.

    A hash of the path keeps files of the same base name apart; one of 32 bits would not among 100 000. `format` is
    empty if it could not be told.
    """
    stem = path.rpartition("/")[2]
    if format == LISTING or (format and FORMATS[format].claims(stem, b"")):
        stem = _EXTENSION.sub(r"\1", stem)
    # Readers of a directory of Parquet files skip names that begin with a dot or an underscore.
    slug = re.sub(r"[^A-Za-z0-9._-]+", "_", stem)[:_MAX_SLUG].lstrip("._-") or "file"
    digest = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{slug}-{digest}-{start:09d}-{stop:09d}"


def chunk_of_file(path: str) -> tuple[int, int, str] | None:
    """The numbers of the first pair and after the last, and the name, of the chunk that an output file belongs to.

    None for any other file.
    """
    found = _CHUNK_RANGE.search(path)
    return (int(found[1]), int(found[2]), re.split(r"[/\\]", path)[-1].rpartition(".")[0]) if found else None


def pairs_of_file(path: str) -> int:
    """The number of pairs in the chunk that an output file belongs to, by its name; 0 for any other file."""
    found = chunk_of_file(path)
    return found[1] - found[0] if found else 0
