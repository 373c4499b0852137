"""The listing of an earlier run of folders: finds its pairs by the lines that describe them, wherever they stood."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from apache_beam.io.filesystems import FileSystems

from transforms.reading.folders import listing_name
from transforms.reading.format import LISTING, chunk_of_file
from transforms.reading.input_files import open_input
from transforms.reading.lines import read_lines
from transforms.schema import Chunk
from transforms.storage.errors import READ_ERRORS
from transforms.storage.run_files import RunFiles, list_files

# Two different lines among 10^7 share a hash with a probability of 10^-5; their paths would have to be equal as well.
_HASH_BYTES = 8


@dataclass(frozen=True, eq=False)
class EarlierListing:
    """Where the pairs of an earlier run lie.

    Attributes:
        hashes: of the lines, sorted, as uint64 [lines].
        numbers: of the lines, in that order, as int64 [lines].
        chunks: the chunks with metrics, in the order of their lines.
    """

    hashes: np.ndarray
    numbers: np.ndarray
    chunks: Sequence[Chunk]

    def find(self, lines: Sequence[bytes]) -> np.ndarray:
        """The number of each line in the listing, as int64 [lines]; -1 where the listing has no such line."""
        wanted = _hashes(lines)
        at = np.minimum(np.searchsorted(self.hashes, wanted), len(self.hashes) - 1)
        return np.where(self.hashes[at] == wanted, self.numbers[at], -1)

    def chunks_of(self, numbers: np.ndarray) -> list[Chunk]:
        """The chunks that hold any of these lines."""
        found = np.searchsorted([chunk.start for chunk in self.chunks], numbers, side="right") - 1
        return [self.chunks[index] for index in np.unique(found) if index >= 0]


@lru_cache(maxsize=1)
def read_earlier_listing(output: str, path: str, claim: str) -> EarlierListing | None:
    """Read the listing of a run; once in a process, because it may name a million files.

    Args:
        output: the run's directory, wherever it is now.
        path: of the listing when the run was at work.
        claim: of the run's last launch.

    Returns:
        None if the listing is gone or damaged, or lists nothing.
    """
    files = RunFiles(output)
    name = path.replace("\\", "/").rpartition("/")[2]
    content = hashlib.sha256()
    lines = []
    try:
        with open_input(FileSystems.join(files.listing_directory, name)) as file:
            for line in read_lines(file):
                content.update(line)
                lines.append(_digest(line.rstrip(b"\n")))
        ranges = sorted(filter(None, map(chunk_of_file, list_files(files.metrics_directory))))
    except (*READ_ERRORS, ValueError):
        return None
    if not lines or name != listing_name(content.hexdigest()):
        return None
    hashes = np.frombuffer(b"".join(lines), np.uint64)
    order = np.argsort(hashes, kind="stable")
    chunks = [Chunk(chunk, path, LISTING, start, stop) for start, stop, chunk in ranges]
    return EarlierListing(hashes[order], order, chunks)


def _hashes(lines: Iterable[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(map(_digest, lines)), np.uint64)


def _digest(line: bytes) -> bytes:
    return hashlib.blake2b(line, digest_size=_HASH_BYTES).digest()
