"""The pairs at the two ends of a column: the worst and the best, with their rows of metrics."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# How many of the worst pairs are kept, and as many of the best.
EXTREME_PAIRS = 10

# A pair at one end of a distribution: rank (the smallest comes first), source, and the row of metrics as JSON. Tuples
# of plain values sort without a key, and the row as text breaks a tie between two runs that scored the same source.
Extreme = tuple[float, str, str]


def extremes(
    metrics: pa.Table, columns: Mapping[str, np.ndarray]
) -> dict[str, tuple[tuple[Extreme, ...], tuple[Extreme, ...]]]:
    """The pairs with the smallest and those with the largest values of each column, the most extreme first.

    Args:
        metrics: the rows.
        columns: the values, float64 [rows]; NaN counts as no value.
    """
    sources = metrics["source"].to_pylist()
    ranked = {(column, sign): sign * values for column, values in columns.items() for sign in (1, -1)}
    ends = {key: _first_positions(ranks, sources) for key, ranks in ranked.items()}
    # A row is often extreme in several columns.
    wanted = sorted({position for positions in ends.values() for position in positions})
    rows = dict(zip(wanted, _row_texts(metrics.take(pa.array(wanted, pa.int64()))), strict=True))

    def end(column: str, sign: int) -> tuple[Extreme, ...]:
        key = (column, sign)
        return tuple((float(ranked[key][i]), sources[i], rows[i]) for i in ends[key])

    return {column: (end(column, 1), end(column, -1)) for column in columns}


def first_of(some: tuple[Extreme, ...], others: tuple[Extreme, ...]) -> tuple[Extreme, ...]:
    """The most extreme pairs of two sorted tuples."""
    # Thousands of chunks are merged, and nearly every merge ends here.
    if not others or (len(some) == EXTREME_PAIRS and some[-1] <= others[0]):
        return some
    return tuple(sorted(some + others)[:EXTREME_PAIRS])


def rows_of(extremes: Sequence[Extreme]) -> list[dict[str, Any]]:
    """The rows of metrics, most extreme first; they hold null for an infinite value."""
    return [json.loads(row) for _, _, row in extremes]


def extremes_of_rows(
    rows: Sequence[Mapping[str, Any]], column: str, infinite_first: int, largest_first: bool
) -> tuple[Extreme, ...]:
    """Read back the pairs that `rows_of` turned into rows.

    Args:
        rows: its result.
        column: the column in which the pairs are extreme.
        infinite_first: number of the column's values that are the infinity that comes first; a null after these stands
            for the other infinity.
        largest_first: whether the largest values come first.
    """
    found = []
    for position, row in enumerate(rows):
        value = row[column]
        if value is None:
            rank = -math.inf if position < infinite_first else math.inf
        else:
            rank = float(-value if largest_first else value)
        found.append((rank, row["source"], json.dumps(row)))
    return tuple(found)


def _first_positions(ranks: np.ndarray, sources: Sequence[str]) -> list[int]:
    candidates = np.flatnonzero(~np.isnan(ranks))
    if len(candidates) > EXTREME_PAIRS:
        limit = np.partition(ranks[candidates], EXTREME_PAIRS - 1)[EXTREME_PAIRS - 1]
        candidates = candidates[ranks[candidates] <= limit]
    return sorted(candidates.tolist(), key=lambda position: (ranks[position], sources[position]))[:EXTREME_PAIRS]


def _row_texts(rows: pa.Table) -> list[str]:
    # The trace of an optimization is long, and can be looked up in the metrics.
    scalar = [name for name in rows.column_names if name == "notes" or not pa.types.is_nested(rows[name].type)]
    return [
        json.dumps({key: _jsonable(value) for key, value in row.items()})
        for row in _plain(rows.select(scalar)).to_pylist()
    ]


def _plain(table: pa.Table) -> pa.Table:
    """Turn dates and times into text: Python's own types lack nanoseconds and some years."""
    for index, column in enumerate(table.columns):
        if pa.types.is_temporal(column.type):
            table = table.set_column(index, table.column_names[index], time_text(column))
    return table


def time_text(times: pa.ChunkedArray) -> pa.ChunkedArray:
    """Times as text. Times with a zone are given in UTC with a Z, since not every worker knows the zone's rules."""
    if getattr(times.type, "tz", None) is None:
        return times.cast(pa.string())
    return pc.binary_join_element_wise(times.cast(pa.timestamp(times.type.unit)).cast(pa.string()), "Z", "")


def _jsonable(value: Any) -> Any:
    """The value for JSON: null for infinity and NaN, which JSON lacks, and text for other types it lacks."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int, list)) else str(value)
