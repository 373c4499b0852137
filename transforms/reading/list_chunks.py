"""List the chunks of an input file: tell its format, check its fields, cut it into chunks."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from transforms.reading.fields import check_schema, partitions
from transforms.reading.format import AUTO, FORMATS, chunk_name, format_names
from transforms.reading.input_files import InputFile, open_input
from transforms.reading.sandboxed import list_parts, read_schema
from transforms.schema import Chunk, ChunkSeries, Fields
from transforms.storage.errors import READ_ERRORS, describe, not_done_reason
from transforms.worker.sandbox import Sandbox, SandboxError

CHUNK_PAIRS = 256
CHUNK_BYTES = 256 << 20

# How much of a file a format sees to recognize it.
_HEAD_BYTES = 64 << 10


def detect_format(path: str, input_format: str = AUTO) -> str:
    """Tell a file's format: the one given or, for `auto`, by the file's name and then by its first bytes.

    Returns:
        a key of `FORMATS`.

    Raises:
        ValueError: no format claims the file.
        READ_ERRORS: the file had to be opened and could not be.
    """
    if input_format != AUTO:
        return input_format
    if named := _claimed(path, b""):
        return named
    with open_input(path) as file:
        head = file.read(_HEAD_BYTES)
    if found := _claimed(path, head):
        return found
    raise ValueError(f"{path} has neither the name nor the content of a {' or '.join(format_names())} file")


def check_fields(
    path: str, format: str, fields: Fields, sandbox: Sandbox = Sandbox(), strict: bool = True
) -> tuple[pa.Field, ...] | None:
    """Check on the launcher that a file holds the fields asked for; all the kept ones if it is `strict`.

    Returns:
        The kept fields that it holds, in the types of the metrics. None if the file is damaged or holds no good record
        to look at: ask the next file.

    Raises:
        ValueError: one line with every field that is missing or unusable, and the fields found.
    """
    try:
        with open_input(path) as file:
            schema = read_schema(FORMATS[format], sandbox, file, fields)
        if schema is None:
            return None
        for name in partitions(path).keys() - set(schema.names):
            schema = schema.append(pa.field(name, pa.string()))
        return check_schema(schema, fields, strict)
    except (*READ_ERRORS, SandboxError):
        return None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def list_chunks(
    file: InputFile,
    input_format: str,
    fields: Fields,
    chunk_pairs: int = CHUNK_PAIRS,
    chunk_bytes: int = CHUNK_BYTES,
    sandbox: Sandbox = Sandbox(),
) -> Iterator[ChunkSeries]:
    """Cut a file into chunks of at most `chunk_pairs` pairs (or of one record) and about `chunk_bytes` bytes.

    A series holds the chunks that one worker best reads in one go: usually one chunk; neighbouring chunks of a
    Parquet file; all chunks of a compressed TFRecord, which can only be read from its beginning. Every file yields at
    least one chunk. A valid file without records, such as a TFRecord of 0 bytes, is a chunk of 0 records. A file that
    cannot be listed to its end has a last chunk of 0 records whose `error` says why.
    """
    format = input_format if input_format != AUTO else ""
    candidates = len(fields.generated)
    records = max(1, chunk_pairs // candidates)
    listed = 0

    def chunk(pairs: int, place: Any = None, error: str = "", reason: str = "") -> Chunk:
        nonlocal listed
        start, listed = listed, listed + pairs
        name = chunk_name(file.path, format, start, listed)
        return Chunk(name, file.path, format, start, listed, place, error, reason, file.label, file.version)

    try:
        format = detect_format(file.path, input_format)
        with open_input(file.path, file.version) as opened:
            for parts in list_parts(FORMATS[format], sandbox, opened, fields, records, chunk_bytes):
                yield tuple(chunk(part.records * candidates, part.place) for part in parts)
        if not listed:
            yield (chunk(0),)
    except SandboxError as error:
        yield (chunk(0, error=str(error), reason=error.reason),)
    except (*READ_ERRORS, ValueError) as error:
        yield (chunk(0, error=describe(error), reason=not_done_reason(error)),)


def _claimed(path: str, head: bytes) -> str:
    """The first format that claims the file; empty if none does."""
    return next((name for name, format in FORMATS.items() if format.claims(path, head)), "")
