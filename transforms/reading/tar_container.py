"""The tar container: find its members, even past damage, without reading what is in them.

A member is a header of 512 bytes and its data, filled up to a multiple of 512 bytes. Listing and reading both use
`find_members`, so they count alike whatever the damage.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

_BLOCK = tarfile.BLOCKSIZE
# How much is searched at a time for the next header behind zeros or damage.
_WINDOW_BYTES = 1 << 20
# The names of members may take several blocks of their own.
_MAX_NAME_BYTES = 1 << 20
# Headers that say more about the next member.
_EXTENSIONS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)


@dataclass(frozen=True)
class Member:
    """A regular file in a tar, or a damaged stretch of it.

    Attributes:
        name: path of the file; empty for a damaged stretch.
        offset: where its header begins.
        start: where its data begins.
        size: bytes of its data.
        stop: offset after it.
        reason: empty, or `truncated_member` or `damaged_member`.
        message: what is wrong with it.
    """

    name: str
    offset: int
    start: int
    size: int
    stop: int
    reason: str = ""
    message: str = ""


def is_tar(head: bytes) -> bool:
    """Tell whether a file begins with the header of a tar member."""
    return _header(head[:_BLOCK]) is not None


def find_members(file: BinaryIO, offset: int = 0, stop: int | None = None) -> Iterator[Member]:
    """Every regular file between two offsets, at which headers must begin; by default to the end.

    Zeros, which end an archive, are skipped, since archives may be joined. Up to the next good header, or to the end of
    the file, a damaged stretch is one member without a name.
    """
    size = file.seek(0, 2)
    stop = size if stop is None else stop
    begin = offset
    names: dict[str, Any] = {}
    while offset < stop:
        file.seek(offset)
        block = file.read(_BLOCK)
        header = _header(block)
        if header is None:
            if not any(block) and not names:
                begin = offset = _next_block(file, offset, zeros=True)
                continue
            offset = _next_block(file, offset + _BLOCK, zeros=False)
            reason = "damaged_member" if len(block) == _BLOCK else "truncated_member"
            message = f"no header of a tar member ({offset - begin} bytes from offset {begin} on are skipped)"
            yield Member("", begin, begin, 0, offset, reason, message)
            begin, names = offset, {}
            continue
        start = offset + _BLOCK
        is_extension = header.type in _EXTENSIONS
        if header.isreg():
            length = names.get("size", header.size)
        else:
            length = header.size if is_extension or header.type not in tarfile.SUPPORTED_TYPES else 0
        offset = start + -(-length // _BLOCK) * _BLOCK
        if is_extension and start + length <= size:
            names |= _names(header.type, file.read(length)) if length <= _MAX_NAME_BYTES else {}
            continue
        name = names.get("path", header.name)
        if start + length > size:
            message = f"{name} needs {length} bytes, but the file ends after {size - start}"
            yield Member(name, begin, start, length, size, "truncated_member", message)
            return
        if header.isreg():
            yield Member(name, begin, start, length, min(offset, size))
        begin, names = offset, {}


def _header(block: bytes) -> tarfile.TarInfo | None:
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError, OverflowError):
        return None
    return header if header.size >= 0 else None


def _names(kind: bytes, data: bytes) -> dict[str, Any]:
    """The path and the size that an extended header gives the next member."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": data.split(b"\0")[0].decode("utf-8", "surrogateescape")}
    found: dict[str, Any] = {}
    while data and kind == tarfile.XHDTYPE:
        length, space, _ = data.partition(b" ")
        if not space or not length.isdigit() or not 0 < int(length) <= len(data):
            break
        key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        if key == b"path":
            found["path"] = value.decode("utf-8", "surrogateescape")
        elif key == b"size" and value.isdigit():
            found["size"] = int(value)
        data = data[int(length) :]
    return found


def _next_block(file: BinaryIO, offset: int, zeros: bool) -> int:
    """The offset of the next block that is not zeros or, after damage, of the next good header; or the file's end."""
    while True:
        file.seek(offset)
        window = file.read(_WINDOW_BYTES)
        if not window:
            return file.seek(0, 2)
        if zeros:
            filled = len(window) - len(window.lstrip(b"\0"))
            if filled < len(window):
                return offset + filled // _BLOCK * _BLOCK
        else:
            for start in range(0, len(window), _BLOCK):
                if _header(window[start : start + _BLOCK]) is not None:
                    return offset + start
        offset += len(window)
