"""Scored chunks made in code, for tests of summaries and of everything that reads summaries."""

import math
from collections.abc import Sequence

import pyarrow as pa

from transforms.columns import Column
from transforms.failure import Failure
from transforms.losses.catalog import LOSSES
from transforms.losses.objective import parse_objective
from transforms.losses.plan import Plan
from transforms.schema import PRECISION_KEY, Chunk, ScoredChunk, metrics_schema
from transforms.steps import SummarizeChunks
from transforms.summary.distribution import Distribution, distributions
from transforms.summary.summary import Summary

Values = list[float | None]
INF, NAN = math.inf, math.nan


_PLAN = Plan(tuple(LOSSES), parse_objective("mae"), pixel_gradient=True)
_COLUMNS = {column.name: column for column in (*_PLAN.columns, *_PLAN.optimization_columns)}


def columns_named(*names: str) -> tuple[Column, ...]:
    """The columns of these names, as a plan makes them."""
    return tuple(_COLUMNS[name] for name in names)


def table(
    columns: dict[str, Values],
    start: int = 0,
    kept: pa.Array | None = None,
    precision: str = "float32",
    sizes: Sequence[tuple[int, int]] = ((5, 4),),
    notes: Sequence[Sequence[str]] = (("note",),),
) -> pa.Table:
    """Metrics with these columns; sources are numbered from `start`, sizes (W, H) and notes repeat in turn."""
    count = len(next(iter(columns.values())))
    keep = [] if kept is None else [pa.field("kept", kept.type)]
    rows = {
        "id": [f"id-{start + n}" for n in range(count)],
        "source": [f"in#{start + n:04}" for n in range(count)],
        "height": [sizes[n % len(sizes)][1] for n in range(count)],
        "width": [sizes[n % len(sizes)][0] for n in range(count)],
        **({} if kept is None else {"kept": kept}),
        **{name: pa.array(values, pa.float32(), from_pandas=False) for name, values in columns.items()},
        "notes": [list(notes[n % len(notes)]) for n in range(count)],
    }
    schema = metrics_schema(columns_named(*columns), keep).with_metadata({PRECISION_KEY: precision})
    return pa.table(rows, schema=schema)


def chunk_of(
    metrics: pa.Table, failures: Sequence[Failure] = (), pairs: int | None = None, name: str = "in"
) -> ScoredChunk:
    """The metrics and failures as a chunk of `pairs` pairs, by default as many as there are rows."""
    listed = len(metrics) + len(failures) if pairs is None else pairs
    return ScoredChunk(Chunk(name, f"{name}.parquet", "parquet", 0, listed), metrics, tuple(failures))


def summary_of(*chunks: ScoredChunk, columns: tuple[str, ...] = ("mae",), slice_by: str = "") -> Summary:
    """The summary of these chunks, as an engine makes it in one bundle."""
    combine = SummarizeChunks(columns_named(*columns), slice_by)
    accumulator = combine.create_accumulator()
    for chunk in chunks:
        accumulator = combine.add_input(accumulator, chunk)
    return combine.extract_output(accumulator)


def distribution_of(values: Values, column: str = "mae") -> Distribution:
    """The distribution of one column with these values."""
    return distributions(table({column: values}), columns_named(column))[column]
