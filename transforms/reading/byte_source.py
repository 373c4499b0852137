"""Uncompressed bytes by offset: of a plain file, or of a gzip or zlib stream that is read once from its beginning."""

import gzip
import zlib
from typing import BinaryIO, Protocol

# How much is unpacked at a time, and so how much before a broken spot can be lost with it.
_BLOCK_BYTES = 64 << 10


class Source(Protocol):
    """Uncompressed bytes that are read by offset, roughly forwards.

    Attributes:
        error: why the stream breaks off; empty if it ended well or has not ended yet.
    """

    error: str

    def reaches(self, end: int) -> bool:
        """Tell whether there are at least `end` bytes."""
        ...

    def at(self, offset: int, size: int) -> bytes:
        """Get `size` bytes from `offset` on, or fewer at the end; never from before the last `release`."""
        ...

    def release(self, offset: int) -> None:
        """Promise never again to ask for bytes before `offset`."""
        ...

    def skip(self, end: int) -> int:
        """Release what lies before `end` without keeping it on the way; return `end`, or where the bytes end."""
        ...


class PlainSource:
    """A seekable uncompressed file."""

    error = ""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, 2)

    def reaches(self, end: int) -> bool:
        return end <= self._size

    def at(self, offset: int, size: int) -> bytes:
        size = min(size, self._size - offset)
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) < size:
            raise OSError(f"the file became shorter while it was read: {size} bytes expected at offset {offset}")
        return data

    def release(self, offset: int) -> None:
        """Do nothing: no bytes are kept."""

    def skip(self, end: int) -> int:
        return min(end, self._size)


class PackedSource:
    """A gzip or zlib stream, read once from its beginning; keeps the bytes that were unpacked and not yet released.

    Args:
        file: opened at its beginning.
        kind: `gzip` or `zlib`.
    """

    def __init__(self, file: BinaryIO, kind: str) -> None:
        self._stream: gzip.GzipFile | _ZlibStream = (
            gzip.GzipFile(fileobj=file, mode="rb") if kind == "gzip" else _ZlibStream(file)
        )
        self._kind = kind
        self._unpacked = bytearray()
        self._start = 0
        self._ended = False
        self.error = ""

    def reaches(self, end: int) -> bool:
        while self._start + len(self._unpacked) < end and not self._ended:
            self._unpack()
        return self._start + len(self._unpacked) >= end

    def at(self, offset: int, size: int) -> bytes:
        self.reaches(offset + size)
        return bytes(self._unpacked[offset - self._start : offset - self._start + size])

    def release(self, offset: int) -> None:
        while self._start < offset:
            dropped = min(offset - self._start, len(self._unpacked))
            del self._unpacked[:dropped]
            self._start += dropped
            if self._start < offset and not self.reaches(self._start + 1):
                return

    def skip(self, end: int) -> int:
        self.release(end)
        return self._start

    def _unpack(self) -> None:
        block = b""
        try:
            # read1, because read loses what it has unpacked when it meets damage.
            block = self._stream.read1(_BLOCK_BYTES)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.error = f"the {self._kind} stream is broken: {error}"
        self._unpacked += block
        self._ended = not block


class _ZlibStream:
    """A zlib stream (RFC 1950), TensorFlow's ZLIB; what was unpacked before damage is not lost."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        file.seek(2)  # behind its header; zlib's own check of the sum would lose the last block
        self._unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        self._sum = zlib.adler32(b"")

    def read1(self, size: int) -> bytes:
        while not self._unpacker.eof:
            packed = self._unpacker.unconsumed_tail or self._file.read(_BLOCK_BYTES)
            if data := self._unpacker.decompress(packed, size):
                self._sum = zlib.adler32(data, self._sum)
                return data
            if not packed:
                raise EOFError("it ends too early")
        rest = self._unpacker.unused_data + self._file.read(_BLOCK_BYTES)
        if rest[:4] != self._sum.to_bytes(4):
            raise zlib.error("its checksum is wrong or missing")
        if rest[4:].strip(b"\0"):
            raise zlib.error("other bytes follow its end")
        return b""
