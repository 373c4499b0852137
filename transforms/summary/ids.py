"""Count the ids that repeat, mergeable and in bounded memory."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

# 512 MiB of hashes. Beam moves a summary as one value, of at most 2 GiB, and merging may hold two of them.
MOST_IDS = 1 << 26


@dataclass
class Ids:
    """Hashes of ids; of more than `MOST_IDS`, those that begin with `level` zero bits.

    Equal ids are kept or left out together, so the sample tells the number of duplicates of all (Gibbons, "Distinct
    sampling for highly-accurate answers to distinct values queries and event reports", VLDB 2001). `level` is the
    smallest that leaves no more than `MOST_IDS`, so that the order of merging does not matter.

    Attributes:
        level: number of leading zero bits of the hashes that are kept; 0: all are, and counts are exact.
        hashes: in parts, as they were merged.
        kept: number of hashes.
    """

    level: int = 0
    hashes: list[np.ndarray] = field(default_factory=list)
    kept: int = 0

    @classmethod
    def of(cls, ids: Iterable[str]) -> "Ids":
        """The hashes of ids, 64 bits each, the same on every worker."""
        digests = (blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest() for id in ids)
        hashes = np.frombuffer(b"".join(digests), np.uint64)
        return cls(0, [hashes], len(hashes))._bounded()

    def merge(self, other: "Ids") -> None:
        """Add the other's ids to these."""
        theirs = other if other.level >= self.level else other._at(self.level)
        ours = self if self.level >= other.level else self._at(other.level)
        merged = Ids(theirs.level, ours.hashes, ours.kept + theirs.kept)
        merged.hashes += theirs.hashes
        merged = merged._bounded()
        self.level, self.hashes, self.kept = merged.level, merged.hashes, merged.kept

    @property
    def duplicates(self) -> int:
        """Number of ids that another one before them equals; beyond `MOST_IDS` ids, an estimate."""
        if not self.hashes:
            return 0
        hashes = np.concatenate(self.hashes)
        # In place, for these may be all the memory that there is.
        hashes.sort()
        return int((hashes[1:] == hashes[:-1]).sum()) << self.level

    def _bounded(self) -> "Ids":
        found = self
        while found.kept > MOST_IDS:
            found = found._at(found.level + 1)
        return found

    def _at(self, level: int) -> "Ids":
        left = [part[part >> np.uint64(64 - level) == 0] for part in self.hashes]
        return Ids(level, left, sum(map(len, left)))
