"""Runs in order of time: what each measured, and how far it drifted from the first run and from the one before."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from pipeline.audit.runs.drift import Drift, drift
from pipeline.audit.runs.files import read_record
from pipeline.audit.runs.statistics import STATISTICS, share, statistics
from pipeline.audit.runs.summaries import RunSummary, check_comparable, read_run
from pipeline.audit.runs.verdict_file import read_verdict
from pipeline.errors import UsageError

_DRIFT = ("wasserstein", "psi", "ks")

SCHEMA = pa.schema(
    [
        pa.field("run", pa.string(), nullable=False),
        pa.field("started", pa.timestamp("ms", "UTC"), nullable=False),
        pa.field("verdict", pa.string()),
        *(pa.field(name, pa.int64(), nullable=False) for name in ("listed", "scored", "failed", "unread")),
        pa.field("failure_fraction", pa.float64()),
        pa.field("loss", pa.string(), nullable=False),
        *(pa.field(name, pa.int64(), nullable=False) for name in ("values", "not_defined", "nan", "infinite")),
        *(pa.field(name, pa.float64()) for name in (*STATISTICS, "deviation")),
        *(pa.field(f"{name}_from_{reference}", pa.float64()) for reference in ("first", "previous") for name in _DRIFT),
    ]
)


@dataclass(frozen=True)
class TimelineRun:
    """A run in its place among others.

    Attributes:
        summary: its summary.
        started: when it was started.
        verdict: the gate's verdict; None if no gate has judged it.
        from_first: per column, the drift from the first run; columns that cannot be compared are absent.
        from_previous: per column, the drift from the run before.
        settings_changed: why its numbers cannot be compared with those of the run before; empty if they can.
    """

    summary: RunSummary
    started: datetime
    verdict: str | None
    from_first: Mapping[str, Drift]
    from_previous: Mapping[str, Drift]
    settings_changed: str

    @property
    def path(self) -> str:
        return self.summary.path

    @property
    def failure_fraction(self) -> float | None:
        """The share of the listed records without a row in the metrics; None if none were listed."""
        counts = self.summary.summary.counts()
        return share(counts["failed"] + counts["unread"], counts["listed"])


def read_timeline(runs: Sequence[str]) -> list[TimelineRun]:
    """Read runs and sort them by their start.

    Raises:
        UsageError: a run cannot be read.
    """
    read = [(datetime.fromtimestamp(read_record(run).started, UTC), read_run(run)) for run in runs]
    read.sort(key=lambda entry: (entry[0], entry[1].path))
    timeline: list[TimelineRun] = []
    for started, summary in read:
        first, previous = (timeline[0].summary, timeline[-1].summary) if timeline else (summary, summary)
        verdict = read_verdict(summary.path)
        timeline.append(
            TimelineRun(
                summary=summary,
                started=started,
                verdict=verdict["verdict"] if verdict else None,
                from_first=_drifts(summary, first),
                from_previous=_drifts(summary, previous),
                settings_changed=_difference(summary, previous),
            )
        )
    return timeline


def tabulate(timeline: Sequence[TimelineRun]) -> pa.Table:
    """One row per run and column of its metrics, of `SCHEMA`."""
    rows = [_row(run, column) for run in timeline for column in run.summary.summary.columns]
    return pa.Table.from_pylist(rows, SCHEMA)


def _row(run: TimelineRun, column: str) -> dict[str, Any]:
    summary = run.summary.summary
    distribution = summary.columns[column]
    row = {
        "run": run.path,
        "started": run.started,
        "verdict": run.verdict,
        **{name: summary.counts()[name] for name in ("listed", "scored", "failed", "unread")},
        "failure_fraction": run.failure_fraction,
        "loss": column,
        "values": distribution.finite,
        "not_defined": distribution.null,
        "nan": distribution.nan,
        "infinite": distribution.positive_infinite + distribution.negative_infinite,
        **statistics(distribution),
        "deviation": distribution.deviation,
    }
    for reference, drifts in (("first", run.from_first), ("previous", run.from_previous)):
        found = asdict(drifts[column]) if column in drifts else {}
        row |= {f"{name}_from_{reference}": value for name, value in found.items()}
    # NaN means that nothing was measured.
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}


def _drifts(summary: RunSummary, base: RunSummary) -> dict[str, Drift]:
    if _difference(summary, base):
        return {}
    columns = base.summary.columns
    return {name: drift(now, columns[name]) for name, now in summary.summary.columns.items() if name in columns}


def _difference(one: RunSummary, other: RunSummary) -> str:
    try:
        check_comparable(other, one)
    except UsageError as error:
        return str(error)
    return ""
