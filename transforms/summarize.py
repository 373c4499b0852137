"""Summarize a run: counts, failures by reason, and each loss's distribution and worst pairs, merged over chunks.

A summary is the same whatever the order and the grouping in which chunks are merged: counts and histograms add up,
sums are exact fractions, ties between worst pairs are broken by their source.
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.losses.catalog import LOSSES
from transforms.schema import ScoredChunk
from transforms.score import PRECISION_KEY

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
WORST_PAIRS = 10

# Each histogram bin is 1 % wide, so that its geometric middle is within 0.5 % of every value in it.
_BIN_GROWTH = math.log(1.01)


@dataclass
class Distribution:
    """The values of one column.

    Attributes:
        null: pairs for which it is not defined.
        nan: values that are not a number.
        infinite: values that are +inf or -inf.
        zero: values that are 0.
        positive: number of positive finite values per bin; bin i holds 1.01**i <= x < 1.01**(i + 1).
        negative: the same of -x, for negative finite values.
        minimum: of the finite values.
        maximum: of the finite values.
        total: exact sum of the finite values.
        worst: up to `WORST_PAIRS` (badness, source, row), worst first.
    """

    null: int = 0
    nan: int = 0
    infinite: int = 0
    zero: int = 0
    positive: Counter[int] = field(default_factory=Counter)
    negative: Counter[int] = field(default_factory=Counter)
    minimum: float = math.inf
    maximum: float = -math.inf
    total: Fraction = Fraction(0)
    worst: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)

    @property
    def finite(self) -> int:
        """Number of finite values."""
        return self.zero + self.positive.total() + self.negative.total()

    @classmethod
    def of_column(cls, metrics: pa.Table, column: str) -> "Distribution":
        """The distribution of one column of a table of metrics."""
        # Adding 0 turns -0 into 0: which of two equal values is the minimum must not show.
        values = metrics[column].to_numpy().astype(np.float64) + 0.0
        null = metrics[column].is_null().to_numpy()
        finite = values[np.isfinite(values)]
        result = cls(
            null=int(null.sum()),
            nan=int(np.isnan(values[~null]).sum()),
            infinite=int(np.isinf(values).sum()),
            zero=int((finite == 0).sum()),
            positive=_bins(finite[finite > 0]),
            negative=_bins(-finite[finite < 0]),
            total=_exact_sum(finite),
            worst=_worst(metrics, column, np.where(null, np.nan, values)),
        )
        if len(finite):
            result.minimum, result.maximum = float(finite.min()), float(finite.max())
        return result

    def merge(self, other: "Distribution") -> None:
        """Take in the other's values."""
        self.null += other.null
        self.nan += other.nan
        self.infinite += other.infinite
        self.zero += other.zero
        self.positive.update(other.positive)
        self.negative.update(other.negative)
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        self.total += other.total
        self.worst = heapq.nsmallest(WORST_PAIRS, self.worst + other.worst, key=_worst_first)

    def quantile(self, fraction: float) -> float:
        """The smallest value that at least this fraction of the finite values do not exceed, to 0.5 %."""
        rank = max(1, math.ceil(fraction * self.finite))
        for value, number in self._ascending():
            rank -= number
            if rank <= 0:
                return min(max(value, self.minimum), self.maximum)
        return math.nan

    def to_json(self) -> dict[str, Any]:
        """As plain values: `count` is of finite values, and the statistics are of these."""
        finite = self.finite
        return {
            "count": finite,
            "null": self.null,
            "nan": self.nan,
            "infinite": self.infinite,
            "min": self.minimum if finite else None,
            "max": self.maximum if finite else None,
            "mean": float(self.total / finite) if finite else None,
            "quantiles": {f"{q:g}": self.quantile(q) for q in QUANTILES} if finite else {},
            "worst": [row for _, _, row in self.worst],
        }

    def _ascending(self) -> Iterator[tuple[float, int]]:
        for index in sorted(self.negative, reverse=True):
            yield -_middle(index), self.negative[index]
        yield 0.0, self.zero
        for index in sorted(self.positive):
            yield _middle(index), self.positive[index]


@dataclass
class Summary:
    """What is known of the chunks merged so far.

    Attributes:
        listed: records found by listing.
        scored: pairs with a row in the metrics.
        failed: pairs with a row in the failures.
        unread: records of files, or parts of files, that could not be read.
        chunks: number of chunks.
        failures: number of failed pairs per reason.
        failed_files: reason per input file that could not be read, or not to its end.
        precisions: the networks' precisions on the workers.
        columns: per column of the metrics.
    """

    listed: int = 0
    scored: int = 0
    failed: int = 0
    unread: int = 0
    chunks: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    failed_files: dict[str, str] = field(default_factory=dict)
    precisions: set[str] = field(default_factory=set)
    columns: dict[str, Distribution] = field(default_factory=dict)

    @classmethod
    def of_chunk(cls, chunk: ScoredChunk, columns: Iterable[str]) -> "Summary":
        """The summary of one chunk."""
        files = {failure.id: failure.reason for failure in chunk.failures if failure.scope == "file"}
        reasons = Counter(failure.reason for failure in chunk.failures if failure.scope == "pair")
        scored, failed = len(chunk.metrics), reasons.total()
        return cls(
            listed=chunk.chunk.pairs,
            scored=scored,
            failed=failed,
            unread=chunk.chunk.pairs - scored - failed if files else 0,
            chunks=1,
            failures=reasons,
            failed_files=files,
            precisions={chunk.metrics.schema.metadata[PRECISION_KEY].decode()} if scored else set(),
            columns={column: Distribution.of_column(chunk.metrics, column) for column in columns},
        )

    def merge(self, other: "Summary") -> None:
        """Take in the other's chunks."""
        self.listed += other.listed
        self.scored += other.scored
        self.failed += other.failed
        self.unread += other.unread
        self.chunks += other.chunks
        self.failures.update(other.failures)
        for path, reason in other.failed_files.items():
            # The smaller of two, so that the order of merging does not matter.
            self.failed_files[path] = min(reason, self.failed_files.get(path, reason))
        self.precisions |= other.precisions
        for column, distribution in other.columns.items():
            self.columns.setdefault(column, Distribution()).merge(distribution)

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
            "failures": dict(sorted(self.failures.items())),
            "failed_files": dict(sorted(self.failed_files.items())),
            "precision": sorted(self.precisions),
            "losses": {name: distribution.to_json() for name, distribution in self.columns.items()},
        }


@dataclass(eq=False)
class SummarizeChunks(beam.CombineFn):
    """ScoredChunk... -> Summary.

    Attributes:
        columns: of the metrics, in order.
    """

    columns: tuple[str, ...]

    def create_accumulator(self) -> Summary:
        return Summary(columns={column: Distribution() for column in self.columns})

    def add_input(self, accumulator: Summary, chunk: ScoredChunk) -> Summary:
        accumulator.merge(Summary.of_chunk(chunk, self.columns))
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Summary]) -> Summary:
        merged = self.create_accumulator()
        for accumulator in accumulators:
            merged.merge(accumulator)
        return merged

    def extract_output(self, accumulator: Summary) -> Summary:
        return accumulator


def higher_is_better(column: str) -> bool:
    """Whether large values of the column are good; those of an objective and of pixel gradients are not."""
    return column in LOSSES and LOSSES[column].direction == "higher"


def _bins(positive: np.ndarray) -> Counter[int]:
    indices, numbers = np.unique(np.floor(np.log(positive) / _BIN_GROWTH).astype(int), return_counts=True)
    return Counter(dict(zip(indices.tolist(), numbers.tolist(), strict=True)))


def _middle(index: int) -> float:
    return math.exp((index + 0.5) * _BIN_GROWTH)


def _worst(metrics: pa.Table, column: str, values: np.ndarray) -> list[tuple[float, str, dict[str, Any]]]:
    badness = -values if higher_is_better(column) else values
    # NaN and null are not bad values but none; they are counted elsewhere.
    candidates = np.flatnonzero(~np.isnan(badness))
    if len(candidates) > WORST_PAIRS:
        limit = np.partition(badness[candidates], -WORST_PAIRS)[-WORST_PAIRS]
        candidates = candidates[badness[candidates] >= limit]
    rows = _plain(metrics.take(candidates)).to_pylist()
    found = [(float(badness[i]), row["source"], _jsonable(row)) for i, row in zip(candidates, rows, strict=True)]
    return heapq.nsmallest(WORST_PAIRS, found, key=_worst_first)


def _exact_sum(values: np.ndarray) -> Fraction:
    """The sum without rounding: what `fsum` rounds off is summed in turn until nothing is left."""
    total, left = Fraction(0), values.tolist()
    while part := math.fsum(left):
        total += Fraction(part)
        left.append(-part)
    return total


def _plain(table: pa.Table) -> pa.Table:
    """Dates and times as text: Python's own know neither nanoseconds nor all years."""
    for index, column in enumerate(table.columns):
        if pa.types.is_temporal(column.type):
            table = table.set_column(index, table.column_names[index], _as_text(column))
    return table


def _as_text(times: pa.ChunkedArray) -> pa.ChunkedArray:
    """Times with a zone in UTC, marked by a Z: not every worker has the zone's rules."""
    if getattr(times.type, "tz", None) is None:
        return times.cast(pa.string())
    return pc.binary_join_element_wise(times.cast(pa.timestamp(times.type.unit)).cast(pa.string()), "Z", "")


def _worst_first(pair: tuple[float, str, Any]) -> tuple[float, str]:
    return -pair[0], pair[1]


def _jsonable(row: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: a null, as for a value that is not defined."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
