"""Summarize a run: counts, failures by reason, and each loss's distribution and extreme pairs, merged over chunks.

The order and the grouping in which chunks are merged do not change a summary, and summaries read back from JSON merge
to the same result as their chunks.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from transforms.columns import Column
from transforms.failure import NOT_DONE, Failure
from transforms.row_keys import row_key, row_keys
from transforms.schema import DEVICE_KEY, PRECISION_KEY, SEVERAL, ScoredChunk
from transforms.summary.distribution import Distribution
from transforms.summary.ids import Ids
from transforms.summary.scored_pairs import ScoredPairs, Slices
from transforms.work import Work

FAILURE_EXAMPLES = 5

# A failed pair: source, id, message.
Example = tuple[str, str, str]


@dataclass
class Summary:
    """The summary of the chunks merged so far.

    Attributes:
        listed: records found by listing.
        failed: pairs with a row in the failures.
        unread: records of files, or parts of files, that could not be read.
        chunks: number of chunks.
        earlier_duplicates: scored pairs that had the id of another one when they were summarized and read back.
        ids: the keys of the other scored pairs. They and the next six are not part of a summary's JSON.
        done: names of the chunks with metrics.
        with_failures: names of the chunks with failures.
        optimized_files: number of files with optimized images.
        reused: pairs, scored or failed, that were taken over from an earlier run.
        not_done: why files are to be read another time: a reason of `NOT_DONE` by message.
        scored_again: why the files of an earlier try could not be used, by chunk.
        failures: number of failed pairs per reason.
        examples: per reason, the first `FAILURE_EXAMPLES` failed pairs by source.
        failed_files: reason per input file that could not be read, or not to its end.
        precisions: the networks' precisions on the workers.
        devices: the kinds of device that the workers computed on.
        pairs: the pairs with a row in the metrics.
        slices: the same pairs by the value of a kept field, if one was chosen.
        work: what the chunks have taken. It is not part of a summary's JSON, whose numbers are the same in every run.
    """

    listed: int = 0
    failed: int = 0
    unread: int = 0
    chunks: int = 0
    earlier_duplicates: int = field(default=0, compare=False)
    ids: Ids = field(default_factory=Ids, compare=False)
    done: set[str] = field(default_factory=set, compare=False)
    with_failures: set[str] = field(default_factory=set, compare=False)
    optimized_files: int = field(default=0, compare=False)
    reused: int = field(default=0, compare=False)
    not_done: dict[str, str] = field(default_factory=dict, compare=False)
    scored_again: dict[str, str] = field(default_factory=dict, compare=False)
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[Example, ...]] = field(default_factory=dict)
    failed_files: dict[str, str] = field(default_factory=dict)
    precisions: set[str] = field(default_factory=set)
    devices: set[str] = field(default_factory=set)
    pairs: ScoredPairs = field(default_factory=ScoredPairs)
    slices: Slices | None = None
    work: Work = field(default=Work(), compare=False)

    @classmethod
    def empty(cls, columns: Iterable[Column], slice_by: str = "") -> "Summary":
        """The summary of no chunk."""
        pairs = ScoredPairs(columns={column.name: Distribution(column) for column in columns})
        return cls(pairs=pairs, slices=Slices(slice_by) if slice_by else None)

    @classmethod
    def of_chunk(cls, chunk: ScoredChunk, columns: Iterable[Column], slice_by: str = "") -> "Summary":
        """The summary of one chunk."""
        columns = tuple(columns)
        files = {failure.id: failure.reason for failure in chunk.failures if failure.scope == "file"}
        failed = [failure for failure in chunk.failures if failure.scope == "pair"]
        scored = len(chunk.metrics)
        return cls(
            listed=chunk.chunk.pairs,
            failed=len(failed),
            unread=chunk.chunk.pairs - scored - len(failed) if files else 0,
            chunks=1,
            ids=Ids.of(row_keys(chunk.metrics).to_pylist()),
            done={chunk.chunk.name} if chunk.done else set(),
            with_failures={chunk.chunk.name} if chunk.failures else set(),
            optimized_files=len(chunk.optimized_files),
            reused=chunk.reused,
            not_done={f.message: f.reason for f in chunk.failures if f.reason in NOT_DONE},
            scored_again={chunk.chunk.name: chunk.chunk.damage} if chunk.chunk.damage else {},
            failures=Counter(failure.reason for failure in failed),
            examples=_examples(failed),
            failed_files=files,
            precisions=_metadata(chunk, PRECISION_KEY) if scored else set(),
            devices=_metadata(chunk, DEVICE_KEY) if scored else set(),
            pairs=ScoredPairs.of_table(chunk.metrics, columns),
            slices=Slices.of_table(chunk.metrics, columns, slice_by) if slice_by else None,
            work=chunk.work,
        )

    def merge(self, other: "Summary") -> None:
        """Add the other's chunks to this summary.

        Raises:
            ValueError: the two are sliced by different fields, or only one is.
        """
        if (self.slices is None) != (other.slices is None):
            raise ValueError("a summary with slices and one without cannot be merged")
        self.listed += other.listed
        self.failed += other.failed
        self.unread += other.unread
        self.chunks += other.chunks
        self.earlier_duplicates += other.earlier_duplicates
        self.ids.merge(other.ids)
        self.done |= other.done
        self.with_failures |= other.with_failures
        self.optimized_files += other.optimized_files
        self.reused += other.reused
        self.not_done |= other.not_done
        self.scored_again |= other.scored_again
        self.failures.update(other.failures)
        for reason, examples in other.examples.items():
            self.examples[reason] = tuple(sorted(self.examples.get(reason, ()) + examples)[:FAILURE_EXAMPLES])
        for path, reason in other.failed_files.items():
            # Always the smaller reason, so that the order of merging does not matter.
            self.failed_files[path] = min(reason, self.failed_files.get(path, reason))
        self.precisions |= other.precisions
        self.devices |= other.devices
        self.pairs.merge(other.pairs)
        if self.slices and other.slices:
            self.slices.merge(other.slices)
        self.work += other.work

    @property
    def scored(self) -> int:
        """Pairs with a row in the metrics."""
        return self.pairs.count

    @property
    def duplicate_ids(self) -> int:
        """Scored pairs whose id another scored pair before them has; beyond `MOST_IDS` pairs, an estimate."""
        return self.earlier_duplicates + self.ids.duplicates

    @property
    def columns(self) -> dict[str, Distribution]:
        """The distribution per column of the metrics, of all pairs."""
        return self.pairs.columns

    @property
    def read(self) -> int:
        """Records that were read: must equal scored + failed, or some were lost."""
        return self.listed - self.unread

    def counts(self) -> dict[str, int]:
        """The counts of pairs and files."""
        return {
            "listed": self.listed,
            "read": self.read,
            "scored": self.scored,
            "failed": self.failed,
            "unread": self.unread,
            "files_failed": len(self.failed_files),
        }

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "counts": self.counts(),
            "chunks": self.chunks,
            "duplicate_ids": self.duplicate_ids,
            "precision": sorted(self.precisions),
            "devices": sorted(self.devices),
            "failures": dict(sorted(self.failures.items())),
            "failure_examples": {
                reason: [{"id": id, "source": source, "message": message} for source, id, message in examples]
                for reason, examples in sorted(self.examples.items())
            },
            "failed_files": dict(sorted(self.failed_files.items())),
            "columns": [asdict(distribution.column) for distribution in self.columns.values()],
            **self.pairs.to_json(),
            "slices": self.slices.to_json() if self.slices else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Summary":
        """Read back what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: the data is not of that form.
        """
        counts = data["counts"]
        examples = data["failure_examples"]
        columns = {entry["name"]: Column(**entry) for entry in data["columns"]}
        return cls(
            listed=counts["listed"],
            failed=counts["failed"],
            unread=counts["unread"],
            chunks=data["chunks"],
            earlier_duplicates=data.get("duplicate_ids", 0),
            failures=Counter(data["failures"]),
            examples={r: tuple((e["source"], e["id"], e["message"]) for e in examples[r]) for r in examples},
            failed_files=dict(data["failed_files"]),
            precisions=set(data["precision"]),
            devices=set(data.get("devices", ())),
            pairs=ScoredPairs.from_json(data, counts["scored"], columns),
            slices=Slices.from_json(data["slices"], columns) if data["slices"] else None,
        )


def _metadata(chunk: ScoredChunk, key: bytes) -> set[str]:
    """The values that the metrics' schema has for a key."""
    metadata = chunk.metrics.schema.metadata
    return {value.decode() for value in metadata[key].split(SEVERAL)} if key in metadata else set()


def _examples(failed: Iterable[Failure]) -> dict[str, tuple[Example, ...]]:
    found: dict[str, list[Example]] = {}
    for failure in failed:
        found.setdefault(failure.reason, []).append((failure.source, row_key(asdict(failure)), failure.message))
    return {reason: tuple(sorted(examples)[:FAILURE_EXAMPLES]) for reason, examples in found.items()}
