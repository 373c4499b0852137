"""Two runs of the same pairs, joined by id and candidate: how each loss of each pair has changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from pipeline.audit.runs.files import read_record
from pipeline.audit.runs.statistics import PairedMean, paired_mean
from pipeline.audit.runs.summaries import RunSummary, read_run
from pipeline.audit.runs.verdict_file import read_verdict
from pipeline.errors import UsageError
from transforms.columns import RENAMED, Column
from transforms.reading.fields import is_text
from transforms.reading.format import chunk_of_file
from transforms.reading.parquet_file import open_parquet
from transforms.row_keys import CANDIDATE, candidates, row_keys
from transforms.storage.errors import READ_ERRORS, describe
from transforms.storage.run_files import RunFiles, list_files
from transforms.storage.run_record import RunRecord

# Relative. A pair's batch mates may change its float32 value by a tenth of this, so smaller changes do not count.
TOLERANCE = 1e-4
# Pairs named per column and direction.
MOST_CHANGED = 5


@dataclass(frozen=True)
class ComparedRun:
    """One of the runs to compare.

    Attributes:
        summary: its summary.
        record: its run.json.
        verdict: its verdict.json, if a gate has judged it.
        metrics: id, source, candidate, key and the columns that can get better or worse. The key is `row_key`.
        candidate: the one whose rows `metrics` holds, with the id as their key; empty: it holds all.
    """

    summary: RunSummary
    record: RunRecord
    verdict: Mapping[str, Any] | None
    metrics: pa.Table
    candidate: str = ""

    @property
    def path(self) -> str:
        return self.summary.path


@dataclass(frozen=True)
class CommonPairs:
    """The pairs that two runs have in common, in the order of the first.

    Attributes:
        pairs: how many there are.
        before: [N] rows of the first run: of all these pairs, or of chosen ones.
        after: [N] rows of the second run with the same keys.
        only_before: number of keys that only the first run has.
        only_after: number of keys that only the second run has.
        repeated: number of keys that a run has more than once. They are ambiguous and left out.
    """

    pairs: int
    before: pa.Table
    after: pa.Table
    only_before: int
    only_after: int
    repeated: int


@dataclass(frozen=True)
class ColumnDifference:
    """How one column differs between two runs, over the pairs for which both have a value.

    Attributes:
        column: of the metrics.
        pairs: number of such pairs.
        better: number of them that got better by more than `TOLERANCE`.
        worse: number of them that got worse by more than `TOLERANCE`.
        median_before: of the first run; NaN without pairs.
        median_after: of the second run.
        median_gain: median over the pairs of how much better they got; negative if they got worse.
        mean_gain: their mean over the pairs whose gain is finite, with its interval.
        most_better: positions in `CommonPairs` of the pairs that gained most, up to `MOST_CHANGED`.
        most_worse: positions of the pairs that lost most.
    """

    column: str
    pairs: int
    better: int
    worse: int
    median_before: float
    median_after: float
    median_gain: float
    mean_gain: PairedMean
    most_better: tuple[int, ...]
    most_worse: tuple[int, ...]

    @property
    def same(self) -> int:
        """Number of pairs that changed by no more than `TOLERANCE`."""
        return self.pairs - self.better - self.worse

    @property
    def wins(self) -> float | None:
        """The share of the pairs that got better; a pair that stayed the same counts half. None without pairs."""
        return (self.better + self.same / 2) / self.pairs if self.pairs else None


@dataclass(frozen=True)
class Difference:
    """The difference of a run from the first one.

    Attributes:
        before: the first run.
        after: the other one.
        common: the pairs they have in common, with the rows of those that changed most.
        columns: of every column that can get better or worse; their positions are those of the rows in `common`.
    """

    before: ComparedRun
    after: ComparedRun
    common: CommonPairs
    columns: tuple[ColumnDifference, ...]

    @property
    def names(self) -> tuple[str, str]:
        """The names of the two candidates, or the paths of the two runs."""
        one, other = (run.candidate or run.path for run in (self.before, self.after))
        return one, other

    def describe(self) -> list[str]:
        """The numbers of pairs that were compared and that were not, for people."""
        common = self.common
        parts = [f"{common.pairs:,} pairs in common"]
        one, other = self.names if self.after.candidate else ("before", "after")
        parts += [f"{common.only_before:,} only {one}"] if common.only_before else []
        parts += [f"{common.only_after:,} only {other}"] if common.only_after else []
        repeated = f"{common.repeated:,} ids left out because they occur more than once"
        parts += [repeated] if common.repeated else []
        infinite = {column.column: column.pairs - column.mean_gain.pairs for column in self.columns}
        return parts + [f"{name}: {count:,} infinite left out of the mean" for name, count in infinite.items() if count]


def read_compared(run: str) -> ComparedRun:
    """Read the compared parts of a run.

    Raises:
        UsageError: it cannot be read.
    """
    summary = read_run(run)
    columns = [name for name, found in summary.summary.columns.items() if found.column.direction != "none"]
    try:
        metrics = _read_metrics(run, columns)
    except READ_ERRORS as error:
        raise UsageError(f"cannot read the metrics of {run}: {describe(error)}") from error
    if len(metrics) != summary.summary.scored:
        raise UsageError(
            f"the metrics of {run} hold {len(metrics)} pairs, but its summary {summary.summary.scored}: files of "
            "metrics/ were added, deleted or replaced; bring the originals back, or score again"
        )
    return ComparedRun(summary, read_record(run), read_verdict(run), metrics)


def difference(before: ComparedRun, after: ComparedRun, most: int = MOST_CHANGED) -> Difference:
    """Join two runs by key and see how each column has changed.

    Args:
        before: the first run.
        after: the other one.
        most: pairs to name per column and direction.
    """
    common = join(before.metrics, after.metrics)
    known = before.summary.summary.columns
    columns = [known[name].column for name in before.metrics.column_names if name in known]
    found = [column_difference(common, column, most) for column in columns]
    # Only these are shown, and many differences may be held at once.
    named = sorted({position for one in found for position in (*one.most_better, *one.most_worse)})
    place = {position: index for index, position in enumerate(named)}
    rows = pa.array(named, pa.int64())
    return Difference(
        before,
        after,
        replace(common, before=common.before.take(rows), after=common.after.take(rows)),
        tuple(
            replace(
                one,
                most_better=tuple(map(place.__getitem__, one.most_better)),
                most_worse=tuple(map(place.__getitem__, one.most_worse)),
            )
            for one in found
        ),
    )


def join(before: pa.Table, after: pa.Table) -> CommonPairs:
    """Join the metrics of two runs by key."""
    repeated = pc.unique(pa.concat_arrays([_repeated(before), _repeated(after)]))
    first, second = (table.filter(pc.invert(pc.is_in(table["key"], repeated))) for table in (before, after))
    positions = pc.index_in(first["key"], second["key"].combine_chunks())
    common = first.filter(pc.is_valid(positions))
    return CommonPairs(
        pairs=len(common),
        before=common,
        after=second.take(pc.drop_null(positions)),
        only_before=len(first) - len(common),
        only_after=len(second) - len(common),
        repeated=len(repeated),
    )


def column_difference(common: CommonPairs, column: Column, most: int = MOST_CHANGED) -> ColumnDifference:
    """How one column has changed, with up to `most` pairs per direction."""
    before, after, gains = values_and_gains(common.before, common.after, column)
    both = np.flatnonzero(~np.isnan(gains))
    size = np.maximum(np.abs(before), np.abs(after))
    # An infinite value differs from every finite one, but infinity times the tolerance would hide that.
    changed = np.where(np.isinf(size), gains != 0, np.abs(gains) > TOLERANCE * size)
    better, worse = changed & (gains > 0), changed & (gains < 0)
    return ColumnDifference(
        column=column.name,
        pairs=len(both),
        better=int(better.sum()),
        worse=int(worse.sum()),
        median_before=_median(before[both]),
        median_after=_median(after[both]),
        median_gain=_median(gains[both]),
        mean_gain=paired_mean(gains[np.isfinite(gains)]),
        most_better=_largest(np.where(better, gains, 0.0), common.before, most),
        most_worse=_largest(np.where(worse, -gains, 0.0), common.before, most),
    )


def values_and_gains(before: pa.Table, after: pa.Table, column: Column) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A column's values before and after, and how much better each pair got, float64 [N].

    The gain is 0 if both values are the same infinity, and NaN if one of them is missing.
    """
    old, new = (table[column.name].to_numpy().astype(np.float64) for table in (before, after))
    better, worse = (new, old) if column.higher_is_better else (old, new)
    return old, new, np.subtract(better, worse, out=np.zeros_like(old), where=old != new)


def _read_metrics(run: str, columns: Sequence[str]) -> pa.Table:
    """Id, source, candidate, key and these columns of a run's pairs, local or in a store.

    Raises:
        READ_ERRORS: (of `storage.errors`) they cannot be read.
        UsageError: a file lacks a column, or holds something else in it.
    """
    names = ["id", "source", *columns]
    tables = []
    # File managers leave files of their own.
    for path in sorted(filter(chunk_of_file, list_files(RunFiles(run).metrics_directory))):
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            # Not Arrow's own reader of schemas: an encrypted file aborts the process later on.
            schema = open_parquet(file).schema_arrow
            stored = {RENAMED.get(name, name): name for name in schema.names}
            wanted = [stored.get(name, name) for name in names]
            for name in wanted:
                _check_column(schema, name, path)
            candidate = [CANDIDATE] if CANDIDATE in stored else []
            table = pq.read_table(file, columns=[*wanted, *candidate])
            # Text from a file need not be UTF-8.
            table.validate(full=True)
            for index in (0, 1):
                table = table.set_column(index, names[index], table[index].cast(pa.string()))
                if table[index].null_count:
                    raise UsageError(f"{path} has a row without {names[index]}")
            columns_of_file = table.select(range(len(names))).rename_columns(names)
            columns_of_file = columns_of_file.add_column(2, CANDIDATE, candidates(table))
            tables.append(columns_of_file.add_column(3, "key", row_keys(table)))
    if not tables:
        raise FileNotFoundError(f"{RunFiles(run).metrics_directory} has no files")
    return pa.concat_tables(tables)


def _check_column(schema: pa.Schema, name: str, path: str) -> None:
    """Check that a file of metrics has one column of the name, and of the type that its name asks for."""
    found = schema.get_all_field_indices(name)
    if len(found) != 1:
        raise UsageError(f"{path} has {len(found)} columns {name!r}; one is needed")
    dtype = schema.field(found[0]).type
    fits = is_text(dtype) if name in ("id", "source") else pa.types.is_floating(dtype) or pa.types.is_integer(dtype)
    if not fits:
        raise UsageError(f"{path} holds {dtype} in its column {name!r}")


def _largest(changes: np.ndarray, pairs: pa.Table, most: int) -> tuple[int, ...]:
    """Positions of the largest changes above 0; ties go to the ids that come first, whatever the order of files."""
    found = np.flatnonzero(changes > 0)
    if len(found) > most:
        limit = np.partition(changes[found], -most)[-most]
        found = found[changes[found] >= limit]
    ids = dict(zip(found.tolist(), pairs["key"].take(found).to_pylist(), strict=True))
    return tuple(sorted(ids, key=lambda position: (-changes[position], ids[position]))[:most])


def _median(values: np.ndarray) -> float:
    # Not the mean of the middle two: one of them may be infinite.
    return float(np.quantile(values, 0.5, method="inverted_cdf")) if len(values) else float("nan")


def _repeated(table: pa.Table) -> pa.Array:
    counts = pc.value_counts(table["key"])
    return counts.field("values").filter(pc.greater(counts.field("counts"), 1))
