"""Text files of a record per line, or of a few lines: blocks of lines, cut into ranges of bytes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from transforms.schema import Part

_BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 64 << 20


@dataclass(frozen=True)
class LineRange:
    """The place of a chunk: bytes `start` to `stop`, which hold whole records."""

    start: int
    stop: int

    def read(self, file: BinaryIO) -> bytes:
        """The bytes of the range. Raises OSError if the file has become shorter."""
        file.seek(self.start)
        data = file.read(self.stop - self.start)
        if len(data) < self.stop - self.start:
            raise OSError("the file has changed since it was listed")
        return data


def read_lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file from its beginning, with their ends; quick also where the file itself has no buffer.

    Raises:
        ValueError: a line is longer than 64 MiB.
    """
    file.seek(0)
    rest = b""
    while block := file.read(_BLOCK_BYTES):
        *lines, rest = (rest + block).split(b"\n")
        yield from (line + b"\n" for line in lines)
        if len(rest) > MAX_LINE_BYTES:
            raise ValueError(f"a line is longer than {MAX_LINE_BYTES} bytes; is it a text file?")
    if rest:
        yield rest


def cut(spans: Iterator[tuple[int, int, int]], chunk_pairs: int, chunk_bytes: int) -> Iterator[list[Part]]:
    """Cut records into parts of at most `chunk_pairs` records and about `chunk_bytes` bytes.

    Args:
        spans: of each record where it starts and stops in the file, and the bytes that it needs.
        chunk_pairs: most records of a part.
        chunk_bytes: about the most bytes of a part.
    """
    pairs = needed = begin = end = 0
    for start, stop, size in spans:
        if pairs and (pairs == chunk_pairs or needed + size > chunk_bytes):
            yield [Part(pairs, LineRange(begin, end))]
            pairs = needed = 0
        begin = begin if pairs else start
        pairs, needed, end = pairs + 1, needed + size, stop
    if pairs:
        yield [Part(pairs, LineRange(begin, end))]
