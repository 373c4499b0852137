"""Read chunks: from references to Arrow tables of encoded pairs."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from transforms.failure import NOT_DONE, as_utf8, pair_failure
from transforms.images.decode import DecodePolicy
from transforms.reading.format import FORMATS, LISTING
from transforms.reading.input_files import check_version, open_input
from transforms.reading.named_images import fetch_images
from transforms.reading.sandboxed import read_chunks
from transforms.schema import Chunk, ChunkSeries, EncodedChunk, Fields, encoded_schema
from transforms.storage.errors import READ_ERRORS, describe, not_done_reason
from transforms.worker.sandbox import Sandbox, SandboxError

# The reasons for which a record or a file cannot be read, before there are images to decode. A null image is not among
# them: it travels as a null, and decoding reports it.
READ_REASONS = {
    "unreadable_file": "the file, or this chunk of it, could not be listed or read at all; the message says why",
    **{reason: meaning for format in FORMATS.values() for reason, meaning in format.reasons.items()},
    **NOT_DONE,
    "missing_field": "the record has no field for the generated image, the target or the mask",
    "wrong_type": "a field of the record holds several values, or a value of another type",
}


def read_series(
    series: ChunkSeries,
    fields: Fields,
    keep: Sequence[pa.Field] = (),
    sandbox: Sandbox = Sandbox(),
    max_image_bytes: int = DecodePolicy.max_image_bytes,
) -> Iterator[EncodedChunk]:
    """Read a series of chunks, one after the other: one result per chunk, in order.

    `len(pairs) + len(failures)` is the number of pairs of every chunk that can be read, or of those that are to be
    scored again. One that cannot be read has an empty table and one failure of scope `file`; the next chunk is tried
    all the same.

    Args:
        series: as `list_chunks` made it; some chunks may have been removed.
        fields: the fields to read.
        keep: the kept fields with the types of the result, as `check_fields` gave them.
        sandbox: parses the file.
        max_image_bytes: larger images that records name are not read.
    """
    path = series[0].path if series else ""
    root = None if series and series[0].format == LISTING else fields.image_root or path.rpartition("/")[0]
    empty = encoded_schema(keep, bool(fields.mask)).empty_table()
    done = 0
    while done < len(series):
        if series[done].error or not series[done].pairs:
            yield _without_records(series[done], empty)
            done += 1
            continue
        try:
            for encoded in _read_on(series[done:], fields, keep, sandbox, root, max_image_bytes):
                done += 1
                yield encoded
        except SandboxError as error:
            yield _unreadable(series[done], "read", str(error), empty, error.reason)
            done += 1
        except READ_ERRORS as error:
            yield _unreadable(series[done], "read", describe(error), empty, not_done_reason(error))
            done += 1


def _read_on(
    series: ChunkSeries,
    fields: Fields,
    keep: Sequence[pa.Field],
    sandbox: Sandbox,
    root: str | None,
    max_image_bytes: int,
) -> Iterator[EncodedChunk]:
    """Read to the end of the series. Raises SandboxError or one of `READ_ERRORS` at the first chunk that fails."""
    path, version = series[0].path, series[0].version
    with open_input(path, version) as file:
        for encoded in read_chunks(FORMATS[series[0].format], sandbox, file, series, fields, keep):
            fetched = fetch_images(_only_retried(encoded), root, keep, sandbox, max_image_bytes, fields.allow_http)
            # The file may have been written to while it was read.
            check_version(path, version)
            yield fetched


def _only_retried(encoded: EncodedChunk) -> EncodedChunk:
    """The records of a chunk that are to be scored; all, if no earlier run's result of others is taken over."""
    retried = encoded.chunk.retried
    if not retried:
        return encoded
    wanted = pc.is_in(encoded.pairs["source"], pa.array(sorted(retried)))
    failures = tuple(failure for failure in encoded.failures if failure.source in retried)
    return replace(encoded, pairs=encoded.pairs.filter(wanted), failures=failures)


def _without_records(chunk: Chunk, empty: pa.Table) -> EncodedChunk:
    if chunk.error:
        return _unreadable(chunk, "list", chunk.error, empty, chunk.reason)
    return EncodedChunk(chunk, empty)


def _unreadable(chunk: Chunk, stage: str, problem: str, empty: pa.Table, reason: str = "") -> EncodedChunk:
    lost = f"records {chunk.start} to {chunk.stop - 1}" if chunk.pairs else f"records from {chunk.start} on"
    path = as_utf8(chunk.path)
    failure = pair_failure(path, path, stage, reason or "unreadable_file", f"{path}, {lost}: {problem}")
    return EncodedChunk(chunk, empty, (replace(failure, scope="file"),))
