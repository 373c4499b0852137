"""Folders of images: the listing of their pairs, which the launcher writes into the run's directory, and its chunks.

The workers read the listing, never the folders, so that files that come later change nothing.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa

from transforms.failure import as_utf8, pair_failure
from transforms.reading import zip_members
from transforms.reading.fields import with_notes
from transforms.reading.image_paths import NamedPair, Place, named_chunk
from transforms.reading.lines import cut, read_lines
from transforms.schema import Chunk, EncodedChunk, Fields, Part, encoded_schema

if TYPE_CHECKING:
    from transforms.reading.input_files import InputFile
    from transforms.reading.pairing import FilePair

REASONS = {
    "no_target": "a generated image whose key no target has",
    "no_generated": "a target whose key no generated image has",
    **zip_members.REASONS,
    "no_mask": "a pair whose key no mask has",
    "double_key": "several generated images, several targets, or several masks, have the same key",
}

# The note of a pair whose names differ in their Unicode form.
OTHER_SPELLING = "other_spelling"
NOTES = {OTHER_SPELLING: "the two names look the same, but store accents in two ways (Unicode NFC and NFD)"}


def make_listing(pairs: Sequence["FilePair"], keep: Sequence[str]) -> tuple[str, bytes]:
    """The name and the content of a listing: a line of JSON for each pair or file without a partner.

    The name holds a hash of the content: of the names, sizes and times of all files.

    Args:
        pairs: sorted by id.
        keep: the template's fields to keep.
    """
    # Joining them would hold every line twice.
    file = BytesIO()
    file.writelines(_line(pair, keep) for pair in pairs)
    content = file.getvalue()
    return listing_name(hashlib.sha256(content).hexdigest()), content


def listing_name(digest: str) -> str:
    """The name of a listing whose content has this SHA-256, in hex."""
    return f"pairs-{digest[:16]}.jsonl"


def claims(path: str, head: bytes) -> bool:
    """Only the launcher names a listing: another's could name any file of this machine."""
    return False


def read_schema(file: BinaryIO, fields: Fields) -> pa.Schema:
    """The columns of a listing: the kept ones are text."""
    return pa.schema([*encoded_schema(), *((name, pa.string()) for name in fields.keep)])


def list_pairs(file: BinaryIO, fields: Fields, chunk_pairs: int, chunk_bytes: int) -> Iterator[list[Part]]:
    """Cut a listing into ranges of at most `chunk_pairs` lines that name about `chunk_bytes` bytes of images."""
    yield from cut(_spans(file), chunk_pairs, chunk_bytes)


def read_listed(
    file: BinaryIO, series: Sequence[Chunk], fields: Fields, keep: Sequence[pa.Field]
) -> Iterator[EncodedChunk]:
    """Read the pairs of chunks. The source of a pair is the path of its generated image, and its line's number.

    Raises:
        OSError: the listing has changed.
    """
    for chunk in series:
        pairs, failures = [], []
        notes: list[list[str]] = []
        for number, line in enumerate(chunk.place.read(file).splitlines(), chunk.start):
            record = json.loads(line)
            source = _source(record, number)
            if "reason" in record:
                about = (record["id"], source, "pair", record["reason"], record["message"])
                failures.append(pair_failure(*about, candidate=record["candidate"]))
                continue
            kept = tuple(record["kept"][field.name] for field in keep)
            paths = [record[side] for side in ("generated", "target", "mask") if record.get(side)]
            places = zip(paths, record["bytes"], record["zip"], strict=True)
            pairs.append(NamedPair(record["id"], source, tuple(_place(*place) for place in places), kept))
            notes.append([record["note"]] if "note" in record else [])
        encoded = named_chunk(chunk, pairs, keep, failures, bool(fields.mask))
        yield replace(encoded, pairs=with_notes(encoded.pairs, notes))


def describe_listed(file: BinaryIO, chunk: Chunk) -> Iterator[tuple[str, bytes]]:
    """The source of each pair of a chunk, and the line that describes it: equal lines are the same pair, unchanged.

    The line is empty where the time of a file's last change is not known: nothing says then that the file is the same.

    Raises:
        OSError: the listing has changed.
    """
    for number, line in enumerate(chunk.place.read(file).splitlines(), chunk.start):
        record = json.loads(line)
        yield _source(record, number), line if all(record["modified"]) else b""


def _source(record: Mapping[str, Any], number: int) -> str:
    return f"{as_utf8(record['generated'] or record['target'])}#{number}"


def _line(pair: "FilePair", keep: Sequence[str]) -> bytes:
    files = [file for file in (pair.generated, pair.target, pair.mask) if file]
    record: dict[str, Any] = {
        "id": as_utf8(pair.id),
        "generated": pair.generated and pair.generated.path,
        "target": pair.target and pair.target.path,
        "bytes": [file.size for file in files],
        "zip": [_member(file) for file in files],
        "modified": [file.etag or file.modified for file in files],
        **({"mask": pair.mask.path} if pair.mask else {}),
    }
    if pair.reason:
        record |= {"reason": pair.reason, "message": as_utf8(pair.message), "candidate": as_utf8(pair.candidate)}
    else:
        record |= {"kept": {name: as_utf8(pair.fields[name]) for name in keep}}
        record |= {"note": pair.note} if pair.note else {}
    return json.dumps(record).encode() + b"\n"


def _member(file: "InputFile") -> list[Any] | None:
    # Workers, which only read listings, need not import what finds files.
    from transforms.reading.pairing import ArchivedFile

    if not isinstance(file, ArchivedFile) or not file.member:
        return None
    member = file.member
    return [file.archive, member.start, member.packed, member.size, member.crc]


def _place(path: str, size: int, member: Sequence[Any] | None) -> Place:
    if member is None:
        return Place(path, size=size)
    archive, start, packed, size, crc = member
    return Place(archive, start, size, packed, crc)


def _spans(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    start = 0
    for line in read_lines(file):
        record = json.loads(line)
        yield start, start + len(line), 0 if "reason" in record else sum(record["bytes"])
        start += len(line)
