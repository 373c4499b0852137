"""Runs held against each other: what is read of them, and how the losses of the pairs they share have moved."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.audit.runs.movement import Joined, Movement, join, movement, read_metrics
from pipeline.audit.runs.summaries import RunSummary, read_record, read_run
from pipeline.audit.runs.verdict_file import read_verdict
from pipeline.errors import UsageError
from transforms.storage.errors import READ_ERRORS
from transforms.storage.run_record import RunRecord


@dataclass(frozen=True)
class Side:
    """One of the runs to compare.

    Attributes:
        summary: of the run.
        record: its run.json.
        verdict: its verdict.json, if a gate has judged it.
        metrics: id, source and the columns that can get better or worse.
    """

    summary: RunSummary
    record: RunRecord
    verdict: Mapping[str, Any] | None
    metrics: pa.Table

    @property
    def path(self) -> str:
        return self.summary.path


def read_side(run: str) -> Side:
    """Read what is compared of a run.

    Raises:
        UsageError: it cannot be read.
    """
    summary = read_run(run)
    columns = [name for name, found in summary.summary.columns.items() if found.column.direction != "none"]
    try:
        metrics = read_metrics(run, columns)
    except READ_ERRORS as error:
        raise UsageError(f"cannot read the metrics of {run}: {error}") from error
    return Side(summary, read_record(run), read_verdict(run), metrics)


@dataclass(frozen=True)
class Contrast:
    """A run held against the first.

    Attributes:
        before: the first run.
        after: the other one.
        joined: the pairs they have in common.
        movements: of every column that can get better or worse.
    """

    before: Side
    after: Side
    joined: Joined
    movements: tuple[Movement, ...]


def make_contrast(before: Side, after: Side) -> Contrast:
    """Join two runs by id and see how each column moved."""
    joined = join(before.metrics, after.metrics)
    known = before.summary.summary.columns
    columns = [known[name].column for name in before.metrics.column_names if name in known]
    movements = tuple(movement(joined, column.name, column.higher_is_better) for column in columns)
    return Contrast(before, after, joined, movements)


def pairs_compared(joined: Joined) -> list[str]:
    """What was not compared, for people."""
    parts = [f"{len(joined.before):,} pairs in common"]
    parts += [f"{joined.only_before:,} only before"] if joined.only_before else []
    parts += [f"{joined.only_after:,} only after"] if joined.only_after else []
    return parts + ([f"{joined.repeated:,} ids left out, for they occur more than once"] if joined.repeated else [])
