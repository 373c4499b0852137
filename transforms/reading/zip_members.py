"""Zip files as folders: the members of an archive, and the bytes of one of them, by its place in the file."""

import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from transforms.reading.record_error import RecordError
from transforms.worker.messages import Buffer
from transforms.worker.sandbox import Sandbox

REASONS = {
    "damaged_zip_member": "zip: the member is damaged, encrypted, packed by another method than deflate, or too large",
}

# No image that may be scored has more bytes, whatever it is packed to.
MAX_MEMBER_BYTES = 256 << 20

_ARCHIVE = re.compile(r"(.*?\.zip)(?:/(.*))?", re.IGNORECASE | re.DOTALL)
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_LISTED_AT_A_TIME = 1000


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


def give_members(arguments: Any, parts: Sequence[Buffer], file: BinaryIO) -> Iterator[tuple[Any, Sequence[Buffer]]]:
    """The task of `list_members`."""
    try:
        with zipfile.ZipFile(file) as archive:
            found = [info for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error) as error:
        raise OSError(f"not a zip file, or a damaged one: {error}") from error
    members = [[info.filename, info.header_offset, info.compress_size, info.file_size, info.CRC] for info in found]
    for first in range(0, len(members), _LISTED_AT_A_TIME):
        yield members[first : first + _LISTED_AT_A_TIME], ()


def read_member(file: BinaryIO, member: ZipMember) -> bytes:
    """The data of a member; no more than its size is ever unpacked.

    Raises:
        RecordError: it is damaged, or cannot be unpacked.
    """
    if member.size > MAX_MEMBER_BYTES or member.packed > MAX_MEMBER_BYTES:
        raise RecordError("damaged_zip_member", f"{member.size} bytes; at most {MAX_MEMBER_BYTES} are unpacked")
    if member.start < 0:
        raise RecordError("damaged_zip_member", f"it cannot begin at offset {member.start}")
    file.seek(member.start)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
        raise RecordError("damaged_zip_member", f"no member of the zip file begins at offset {member.start}")
    _, _, flags, method, *_, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
    if flags & 1 or method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        how = "encrypted" if flags & 1 else f"packed by method {method}"
        raise RecordError("damaged_zip_member", f"it is {how}; pack it again with deflate, or unpack the zip file")
    file.seek(member.start + _LOCAL_HEADER.size + name_bytes + extra_bytes)
    data = file.read(member.packed)
    if method == zipfile.ZIP_DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.size + 1)
        except zlib.error as error:
            raise RecordError("damaged_zip_member", f"it cannot be unpacked: {error}", data) from error
    if len(data) != member.size or zlib.crc32(data) != member.crc:
        message = f"its {len(data)} bytes are not the {member.size} that were packed"
        raise RecordError("damaged_zip_member", message, data)
    return data
