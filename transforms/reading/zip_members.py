"""Zip files as folders: the members of an archive, and the bytes of one of them, by its place in the file."""

import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from transforms.reading.record_error import RecordError, too_many_bytes
from transforms.worker.messages import Buffer
from transforms.worker.sandbox import Item, Sandbox, SandboxError, records_of

REASONS = {
    "damaged_zip_member": "zip: the member is damaged, encrypted, or packed by another method than deflate",
}

_ARCHIVE = re.compile(r"(.*?\.zip)(?:/(.*))?", re.IGNORECASE | re.DOTALL)
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_LISTED_AT_A_TIME = 1000
# Members go to a child in portions, so that packed and unpacked bytes seldom fill memory together.
_BYTES_AT_A_TIME = 16 << 20


@dataclass(frozen=True)
class ZipMember:
    """Where a member lies in its archive, as the archive's directory says.

    Attributes:
        start: offset of its header.
        packed: bytes of its data in the file.
        size: bytes of its data, unpacked.
        crc: CRC-32 of these.
    """

    start: int
    packed: int
    size: int
    crc: int


def split_archive(path: str) -> tuple[str, str]:
    """The zip file that a path leads into, and the path in it; ("", path) if it leads into none."""
    found = _ARCHIVE.fullmatch(path)
    return (found[1], found[2] or "") if found else ("", path)


def list_members(file: BinaryIO, sandbox: Sandbox) -> Iterator[tuple[str, ZipMember]]:
    """The files in an archive by name. Raises OSError if it is damaged, and SandboxError."""
    for members, _ in sandbox.call(f"{__name__}:give_members", None, (), file):
        for name, *numbers in members:
            yield name, ZipMember(*numbers)


def give_members(arguments: Any, parts: Sequence[Buffer], file: BinaryIO) -> Iterator[Item]:
    """The task of `list_members`."""
    try:
        with zipfile.ZipFile(file) as archive:
            found = [info for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error) as error:
        raise OSError(f"not a zip file, or a damaged one: {error}") from error
    members = [[info.filename, info.header_offset, info.compress_size, info.file_size, info.CRC] for info in found]
    for first in range(0, len(members), _LISTED_AT_A_TIME):
        yield members[first : first + _LISTED_AT_A_TIME], ()


def read_members(
    file: BinaryIO, members: Sequence[ZipMember], sandbox: Sandbox, most_bytes: int
) -> Iterator[bytes | RecordError]:
    """The data of members, in order, or why a member cannot be had.

    Only headers are parsed here. Deflated members are unpacked in a child, none beyond its size.

    Args:
        file: the archive.
        members: of it.
        sandbox: unpacks.
        most_bytes: larger members are not read.
    """
    for group in _groups(members):
        read = [_read(file, member, most_bytes) for member in group]
        packed = [
            [b"%d" % member.size, one.data]
            for member, one in zip(group, read, strict=True)
            if isinstance(one, _Deflated)
        ]
        unpacked = iter(list(sandbox.each(f"{__name__}:unpack_members", {}, packed)) if packed else ())
        for member, one in zip(group, read, strict=True):
            data = _unpacked(next(unpacked)) if isinstance(one, _Deflated) else one
            yield data if isinstance(data, RecordError) else _checked(data, member)


def unpack_members(arguments: Any, parts: Sequence[Buffer], file: BinaryIO | None) -> Iterator[Item]:
    """The task of `read_members`: of each record, a size and deflated bytes, the data, or the error."""
    for size, data in records_of(arguments, parts):
        try:
            yield "", [zlib.decompressobj(-zlib.MAX_WBITS).decompress(data or b"", int(size or 0) + 1)]
        except zlib.error as error:
            yield str(error), []


@dataclass(frozen=True)
class _Deflated:
    """A member's data as it lies in the file."""

    data: bytes


def _groups(members: Sequence[ZipMember]) -> Iterator[list[ZipMember]]:
    group: list[ZipMember] = []
    size = 0
    for member in members:
        if group and size + member.size > _BYTES_AT_A_TIME:
            yield group
            group, size = [], 0
        group.append(member)
        size += member.size
    if group:
        yield group


def _read(file: BinaryIO, member: ZipMember, most_bytes: int) -> bytes | _Deflated | RecordError:
    """The data of a member, perhaps still deflated."""
    if (size := max(member.size, member.packed)) > most_bytes:
        return too_many_bytes(size, most_bytes)
    if member.start < 0:
        return RecordError("damaged_zip_member", f"it cannot begin at offset {member.start}")
    file.seek(member.start)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
        return RecordError("damaged_zip_member", f"no member of the zip file begins at offset {member.start}")
    _, _, flags, method, *_, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
    if flags & 1 or method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        how = "encrypted" if flags & 1 else f"packed by method {method}"
        return RecordError("damaged_zip_member", f"it is {how}; pack it again with deflate, or unpack the zip file")
    file.seek(member.start + _LOCAL_HEADER.size + name_bytes + extra_bytes)
    data = file.read(member.packed)
    return _Deflated(data) if method == zipfile.ZIP_DEFLATED else data


def _unpacked(result: Item | SandboxError) -> bytes | RecordError:
    """A member's data, from a child's answer."""
    if isinstance(result, SandboxError):
        return RecordError(result.reason, f"unpacking it: {result}")
    error, parts = result
    return RecordError("damaged_zip_member", f"it cannot be unpacked: {error}") if error else bytes(parts[0])


def _checked(data: bytes, member: ZipMember) -> bytes | RecordError:
    if len(data) == member.size and zlib.crc32(data) == member.crc:
        return data
    return RecordError("damaged_zip_member", f"its {len(data)} bytes are not the {member.size} that were packed")
