"""A record that could not be scored, and why."""

import hashlib
from dataclasses import dataclass

import pyarrow as pa

from transforms.row_keys import CANDIDATE

_MAX_MESSAGE = 500

# Reasons of failures of files that may be read another time. Their chunks are not done: a resumed run reads them.
NOT_DONE = {
    "unavailable": "the file, or this chunk of it, vanished or its store failed; the same command reads it again",
    "changed": "the file changed since it was listed; another run, into a directory of its own, reads the new one",
}


@dataclass(frozen=True)
class Failure:
    """A record (or a whole file) that could not be scored: one row of the failures output.

    Attributes:
        id: the pair's id; the file's path for `scope="file"`.
        source: `<path>#<number of the pair>`; `<path>` for `scope="file"`.
        stage: `list`, `pair`, `read`, `decode` or `score`.
        reason: stable machine-readable code, e.g. `truncated`.
        message: one line for people.
        sha256: of the offending bytes, hex; empty if there are none.
        bytes: number of the offending bytes.
        scope: `pair`, or `file` for a file (or a chunk's part of one) that could not be read at all.
        candidate: which candidate of the target it is; empty if there is no such column.
    """

    id: str
    source: str
    stage: str
    reason: str
    message: str
    sha256: str = ""
    bytes: int = 0
    scope: str = "pair"
    candidate: str = ""


def as_utf8(path: str) -> str:
    """A path as text that can be written: bytes of a file name that are not UTF-8 come out escaped."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def pair_failure(
    id: str, source: str, stage: str, reason: str, message: str, data: bytes | None = None, candidate: str = ""
) -> Failure:
    """Make the failure of one pair, with the hash and size of the offending bytes and the message cut to one line."""
    line = " ".join(message.split())[:_MAX_MESSAGE]
    digest = hashlib.sha256(data).hexdigest() if data is not None else ""
    return Failure(id, source, stage, reason, line, digest, len(data or b""), candidate=candidate)


def row_failure(pairs: pa.Table, row: int, stage: str, reason: str, message: str, data: bytes | None = None) -> Failure:
    """Make the failure of one row of a table of encoded pairs."""
    named = [name for name in ("id", "source", CANDIDATE) if name in pairs.schema.names]
    found = {name: pairs[name][row].as_py() for name in named}
    candidate = found.get(CANDIDATE)
    text = "" if candidate is None else str(candidate)
    return pair_failure(found["id"], found["source"], stage, reason, message, data, text)
