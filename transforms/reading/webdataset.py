"""WebDataset and img2dataset tars: the members of a sample, which share a name up to its first dot, are a record."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa

from transforms.reading.fields import id_field
from transforms.reading.image_paths import Place
from transforms.reading.manifest import PEEKED_RECORDS, fitted_value, parse_json, types_of
from transforms.reading.record_error import RecordError
from transforms.reading.records import encode_records
from transforms.reading.tar_container import Member, find_members, is_tar
from transforms.schema import Chunk, EncodedChunk, Fields, Part

REASONS = {
    "truncated_member": "tar: the file ends inside the member",
    "damaged_member": "tar: no member begins where one must; all up to the next good one counts as one record",
    "split_sample": "tar: members of the sample stand apart from each other; these are the later ones",
}

_NAME = re.compile(r"\.tar$", re.IGNORECASE)
_MEMBER = re.compile(r"((?:.*/)?[^/.]+)\.([^/]*)", re.DOTALL)
_MAX_JSON_BYTES = 1 << 20


@dataclass(frozen=True)
class SampleRange:
    """The place of a chunk: bytes `start` to `stop`, and which of the records in them are rests of earlier samples."""

    start: int
    stop: int
    split: Sequence[int] = ()


@dataclass
class _Sample:
    """Consecutive members with one key."""

    file: BinaryIO
    key: str
    members: list[Member] = field(default_factory=list)

    @cached_property
    def suffixes(self) -> dict[str, Member]:
        """The members by what stands behind the first dot of their names."""
        return {_split(member.name)[1]: member for member in self.members}

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """The fields of the sample's json; none if it has none, or it is damaged."""
        member = self.suffixes.get("json")
        if member is None or member.reason or member.size > _MAX_JSON_BYTES:
            return {}
        self.file.seek(member.start)
        try:
            found = parse_json(self.file.read(member.size))
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def id(self, fields: Fields) -> str | None:
        name = id_field(pa.schema([(name, pa.string()) for name in self.values]), fields)
        value = self.values.get(name) if name is not None else None
        return self.key if value is None else str(value)

    def image(self, name: str) -> Place:
        suffixes = self.suffixes
        found = [name] if name in suffixes else [suffix for suffix in suffixes if suffix.rpartition(".")[0] == name]
        if not found:
            raise RecordError(
                "missing_field", f"{self.key} has no member {name!r}; its members: {', '.join(suffixes) or 'none'}"
            )
        if len(found) > 1:
            raise RecordError("wrong_type", f"{self.key} has several members {name!r}: {', '.join(found)}")
        member = suffixes[found[0]]
        if member.reason:
            raise RecordError(member.reason, member.message)
        return Place("", member.start, member.size)

    def kept(self, field: pa.Field) -> tuple[Any, bool]:
        return fitted_value(self.values, field)


def claims(path: str, head: bytes) -> bool:
    """Recognize a tar, which is not compressed, by its name or its first bytes."""
    return _NAME.search(path) is not None or is_tar(head)


def read_schema(file: BinaryIO, fields: Fields) -> pa.Schema | None:
    """The suffixes of the first samples' members, and the fields of their json; None for an archive without samples."""
    peeked = [sample for sample, _ in islice(_samples(file, 0, None), PEEKED_RECORDS) if sample.key]
    suffixes = sorted({suffix for sample in peeked for suffix in sample.suffixes})
    # A suffix may be named without its extension.
    stems = {suffix.rpartition(".")[0] for suffix in suffixes}
    named = [name for name in fields.images if name in stems]
    types = types_of(sample.values for sample in peeked) if fields.keep or fields.id else {}
    return pa.schema((types | dict.fromkeys([*suffixes, *named], pa.binary())).items()) if peeked else None


def list_samples(file: BinaryIO, fields: Fields, chunk_pairs: int, chunk_bytes: int) -> Iterator[list[Part]]:
    """Cut a tar into ranges of at most `chunk_pairs` samples and about `chunk_bytes` bytes."""
    seen: set[bytes] = set()
    records = begin = end = 0
    split: list[int] = []
    for sample, (start, stop) in _samples(file, 0, None):
        if records and (records == chunk_pairs or stop - begin > chunk_bytes):
            yield [Part(records, SampleRange(begin, end, split))]
            records, split = 0, []
        begin = begin if records else start
        digest = hashlib.blake2b(sample.key.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        if sample.key and digest in seen:
            split.append(records)
        seen.add(digest)
        records, end = records + 1, stop
    if records:
        yield [Part(records, SampleRange(begin, end, split))]


def read_samples(
    file: BinaryIO, series: Sequence[Chunk], fields: Fields, keep: Sequence[pa.Field]
) -> Iterator[EncodedChunk]:
    """Read the places of the samples' images. Raises OSError if the file has changed since it was listed."""
    for chunk in series:
        samples = [sample for sample, _ in _samples(file, chunk.place.start, chunk.place.stop)]
        if len(samples) != len(chunk.records(fields)):
            raise OSError("the file has changed since it was listed")
        yield encode_records(chunk, _checked(samples, chunk.place.split), fields, keep)


def _samples(file: BinaryIO, start: int, stop: int | None) -> Iterator[tuple[_Sample, tuple[int, int]]]:
    """The samples in a range of the file, each with the range that it takes itself; damage is a sample without key."""
    sample = _Sample(file, "")
    begin = end = start
    for member in find_members(file, start, stop):
        key = _split(member.name)[0]
        if member.name and not key:
            # Not of a sample: a name without a dot, or one that begins with it.
            continue
        if sample.members and (key != sample.key or not key):
            yield sample, (begin, end)
            sample, begin = _Sample(file, ""), member.offset
        begin = begin if sample.members else member.offset
        sample.key, end = key, member.stop
        sample.members.append(member)
    if sample.members:
        yield sample, (begin, end)


def _checked(samples: Iterable[_Sample], split: Sequence[int]) -> "Iterator[_Sample | RecordError]":
    for number, sample in enumerate(samples):
        if not sample.key:
            (damage,) = sample.members
            yield RecordError(damage.reason or "damaged_member", damage.message or "the member has no name")
        elif number in split:
            names = ", ".join(member.name for member in sample.members)
            yield RecordError("split_sample", f"{names}: other members of {sample.key} stand before others")
        else:
            yield sample


def _split(name: str) -> tuple[str, str]:
    """The key and the suffix of a member; both empty if it belongs to no sample."""
    found = _MEMBER.fullmatch(name)
    return (found[1], found[2].lower()) if found else ("", "")
