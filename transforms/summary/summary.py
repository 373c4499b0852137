"""Summarize a run: counts, failures by reason, and each loss's distribution and extreme pairs, merged over chunks.

A summary is the same whatever the order and the grouping in which chunks are merged, and summaries read back from JSON
merge to the same as their chunks would.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import apache_beam as beam

from transforms.columns import Column
from transforms.schema import Failure, ScoredChunk
from transforms.scoring.score import PRECISION_KEY
from transforms.summary.distribution import Distribution
from transforms.summary.scored_pairs import ScoredPairs, Slices

FAILURE_EXAMPLES = 5

# A failed pair: source, id, message.
Example = tuple[str, str, str]


@dataclass
class Summary:
    """What is known of the chunks merged so far.

    Attributes:
        listed: records found by listing.
        failed: pairs with a row in the failures.
        unread: records of files, or parts of files, that could not be read.
        chunks: number of chunks.
        failures: number of failed pairs per reason.
        examples: per reason, the first `FAILURE_EXAMPLES` failed pairs by source.
        failed_files: reason per input file that could not be read, or not to its end.
        precisions: the networks' precisions on the workers.
        pairs: the pairs with a row in the metrics.
        slices: the same pairs by the value of a kept field, if one was chosen.
    """

    listed: int = 0
    failed: int = 0
    unread: int = 0
    chunks: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[Example, ...]] = field(default_factory=dict)
    failed_files: dict[str, str] = field(default_factory=dict)
    precisions: set[str] = field(default_factory=set)
    pairs: ScoredPairs = field(default_factory=ScoredPairs)
    slices: Slices | None = None

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
            failures=Counter(failure.reason for failure in failed),
            examples=_examples(failed),
            failed_files=files,
            precisions={chunk.metrics.schema.metadata[PRECISION_KEY].decode()} if scored else set(),
            pairs=ScoredPairs.of_table(chunk.metrics, columns),
            slices=Slices.of_table(chunk.metrics, columns, slice_by) if slice_by else None,
        )

    def merge(self, other: "Summary") -> None:
        """Take in the other's chunks.

        Raises:
            ValueError: the two are sliced by different fields, or only one is.
        """
        if (self.slices is None) != (other.slices is None):
            raise ValueError("slices and no slices do not add up")
        self.listed += other.listed
        self.failed += other.failed
        self.unread += other.unread
        self.chunks += other.chunks
        self.failures.update(other.failures)
        for reason, examples in other.examples.items():
            self.examples[reason] = tuple(sorted(self.examples.get(reason, ()) + examples)[:FAILURE_EXAMPLES])
        for path, reason in other.failed_files.items():
            # The smaller of two, so that the order of merging does not matter.
            self.failed_files[path] = min(reason, self.failed_files.get(path, reason))
        self.precisions |= other.precisions
        self.pairs.merge(other.pairs)
        if self.slices and other.slices:
            self.slices.merge(other.slices)

    @property
    def scored(self) -> int:
        """Pairs with a row in the metrics."""
        return self.pairs.count

    @property
    def columns(self) -> dict[str, Distribution]:
        """The distribution per column of the metrics, of all pairs."""
        return self.pairs.columns

    @property
    def read(self) -> int:
        """Records that were read: scored + failed, or something was lost."""
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
            "precision": sorted(self.precisions),
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
        """What `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it wrote something else.
        """
        counts = data["counts"]
        examples = data["failure_examples"]
        columns = {entry["name"]: Column(**entry) for entry in data["columns"]}
        return cls(
            listed=counts["listed"],
            failed=counts["failed"],
            unread=counts["unread"],
            chunks=data["chunks"],
            failures=Counter(data["failures"]),
            examples={r: tuple((e["source"], e["id"], e["message"]) for e in examples[r]) for r in examples},
            failed_files=dict(data["failed_files"]),
            precisions=set(data["precision"]),
            pairs=ScoredPairs.from_json(data, counts["scored"], columns),
            slices=Slices.from_json(data["slices"], columns) if data["slices"] else None,
        )


@dataclass(eq=False)
class SummarizeChunks(beam.CombineFn):
    """ScoredChunk... -> Summary.

    Attributes:
        columns: of the metrics, in order.
        slice_by: a kept field; empty: no slices.
    """

    columns: tuple[Column, ...]
    slice_by: str = ""

    def create_accumulator(self) -> Summary:
        return Summary.empty(self.columns, self.slice_by)

    def add_input(self, accumulator: Summary, chunk: ScoredChunk) -> Summary:
        accumulator.merge(Summary.of_chunk(chunk, self.columns, self.slice_by))
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Summary]) -> Summary:
        merged = self.create_accumulator()
        for accumulator in accumulators:
            merged.merge(accumulator)
        return merged

    def extract_output(self, accumulator: Summary) -> Summary:
        return accumulator


def _examples(failed: Iterable[Failure]) -> dict[str, tuple[Example, ...]]:
    found: dict[str, list[Example]] = {}
    for failure in failed:
        found.setdefault(failure.reason, []).append((failure.source, failure.id, failure.message))
    return {reason: tuple(sorted(examples)[:FAILURE_EXAMPLES]) for reason, examples in found.items()}
