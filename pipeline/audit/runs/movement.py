"""Two runs of the same pairs joined by id: how each loss of each pair has moved."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from transforms.columns import RENAMED
from transforms.storage.run_files import RunFiles, list_files

# Relative. What a pair's batch mates may change of a float32 is a tenth of it; smaller moves are none.
TOLERANCE = 1e-4
MOST_MOVERS = 5


def read_metrics(run: str, columns: Sequence[str]) -> pa.Table:
    """The ids, the sources and these columns of a run's pairs, local or `gs://`.

    Raises:
        OSError, pa.ArrowException: a file of the metrics cannot be read.
    """
    names = ["id", "source", *columns]
    tables = []
    for path in sorted(list_files(RunFiles(run).metrics_directory)):
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            stored = {RENAMED.get(name, name): name for name in pq.read_schema(file).names}
            table = pq.read_table(file, columns=[stored.get(name, name) for name in names])
            tables.append(table.rename_columns(names))
    return pa.concat_tables(tables)


@dataclass(frozen=True)
class Joined:
    """The pairs that two runs have in common, in the order of the first.

    Attributes:
        before: [N] rows of the first run.
        after: [N] rows of the second run with the same ids.
        only_before: number of ids that only the first run has.
        only_after: number of ids that only the second run has.
        repeated: number of ids that a run has more than once: which pair is meant is not known, so they are left out.
    """

    before: pa.Table
    after: pa.Table
    only_before: int
    only_after: int
    repeated: int


def join(before: pa.Table, after: pa.Table) -> Joined:
    """Join the metrics of two runs by id."""
    repeated = pc.unique(pa.concat_arrays([_repeated(before), _repeated(after)]))
    first, second = (table.filter(pc.invert(pc.is_in(table["id"], repeated))) for table in (before, after))
    positions = pc.index_in(first["id"], second["id"].combine_chunks())
    common = first.filter(pc.is_valid(positions))
    return Joined(
        before=common,
        after=second.take(pc.drop_null(positions)),
        only_before=len(first) - len(common),
        only_after=len(second) - len(common),
        repeated=len(repeated),
    )


@dataclass(frozen=True)
class Movement:
    """How one loss has moved between two runs, over the pairs for which both have a value.

    Attributes:
        column: of the metrics.
        pairs: number of such pairs.
        better: of them, those that got better by more than `TOLERANCE`.
        worse: likewise.
        median_before: of the first run; NaN of no pairs.
        median_after: of the second run.
        median_gain: median over the pairs of how much better they got; negative: worse.
        most_better: positions in `Joined` of the pairs that gained most, up to `MOST_MOVERS`.
        most_worse: likewise of those that lost most.
    """

    column: str
    pairs: int
    better: int
    worse: int
    median_before: float
    median_after: float
    median_gain: float
    most_better: tuple[int, ...]
    most_worse: tuple[int, ...]

    @property
    def same(self) -> int:
        """Number of pairs that moved by no more than `TOLERANCE`."""
        return self.pairs - self.better - self.worse


def movement(joined: Joined, column: str, higher_is_better: bool) -> Movement:
    """How one column has moved."""
    before, after = _values(joined.before, column), _values(joined.after, column)
    gains = gain(before, after, higher_is_better)
    both = np.flatnonzero(~np.isnan(gains))
    size = np.maximum(np.abs(before), np.abs(after))
    # Of an infinite value every finite one differs: infinity times the tolerance must not hide it.
    moved = np.where(np.isinf(size), gains != 0, np.abs(gains) > TOLERANCE * size)
    better, worse = moved & (gains > 0), moved & (gains < 0)
    return Movement(
        column=column,
        pairs=len(both),
        better=int(better.sum()),
        worse=int(worse.sum()),
        median_before=_median(before[both]),
        median_after=_median(after[both]),
        median_gain=_median(gains[both]),
        most_better=_largest(np.where(better, gains, 0.0), joined.before),
        most_worse=_largest(np.where(worse, -gains, 0.0), joined.before),
    )


def gain(before: np.ndarray, after: np.ndarray, higher_is_better: bool) -> np.ndarray:
    """How much better each pair got; 0 where both values are the same infinity, NaN where one is missing."""
    same = before == after
    better, worse = (after, before) if higher_is_better else (before, after)
    return np.subtract(better, worse, out=np.zeros_like(before), where=~same)


def _largest(moves: np.ndarray, pairs: pa.Table) -> tuple[int, ...]:
    """Where the largest moves above 0 are; of equal ones those whose ids come first, whatever the order of files."""
    candidates = np.flatnonzero(moves > 0)
    if len(candidates) > MOST_MOVERS:
        candidates = candidates[moves[candidates] >= np.partition(moves[candidates], -MOST_MOVERS)[-MOST_MOVERS]]
    ids = dict(zip(candidates.tolist(), pairs["id"].take(candidates).to_pylist(), strict=True))
    return tuple(sorted(ids, key=lambda position: (-moves[position], ids[position]))[:MOST_MOVERS])


def _values(table: pa.Table, column: str) -> np.ndarray:
    """float64; NaN for null."""
    return table[column].to_numpy().astype(np.float64)


def _median(values: np.ndarray) -> float:
    # Not a mean of the middle two: one of them may be infinite.
    return float(np.quantile(values, 0.5, method="inverted_cdf")) if len(values) else float("nan")


def _repeated(table: pa.Table) -> pa.Array:
    counts = pc.value_counts(table["id"])
    return counts.field("values").filter(pc.greater(counts.field("counts"), 1))
