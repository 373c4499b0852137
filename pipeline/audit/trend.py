"""`pairloss audit trend RUN...`: runs of one dataset over time, as one page and one table."""

import math
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystems import FileSystems

from pipeline.audit.pages.charts import LineChart, line_chart
from pipeline.audit.pages.render import encode, moment, render
from pipeline.audit.pages.views import DIRECTIONS
from pipeline.audit.runs.files import write_file
from pipeline.audit.runs.statistics import statistics
from pipeline.audit.runs.timeline import TimelineRun, read_timeline, tabulate
from pipeline.console.numbers import number, percent
from pipeline.errors import UsageError
from pipeline.flags import Parser, path


def main(argv: Sequence[str]) -> int:
    """Write trend.html and trend.parquet and print their paths; return the exit code.

    Raises:
        UsageError: a run cannot be read or is given twice, or a file cannot be written.
    """
    parser = Parser("pairloss audit trend", "Show runs of one dataset over time: medians, failures and drift.")
    parser.add_argument("runs", metavar="RUN", nargs="+", type=path, help="directories of runs, in any order")
    parser.add_argument("--output", required=True, type=path, metavar="DIR", help="for trend.html and trend.parquet")
    given = parser.parse_args(argv)
    if repeated := sorted({run for run in given.runs if given.runs.count(run) > 1}):
        raise UsageError(f"{', '.join(repeated)} is given twice; name it once")
    runs = read_timeline(given.runs)
    sink = pa.BufferOutputStream()
    pq.write_table(tabulate(runs), sink, compression="zstd")
    files = {"trend.parquet": sink.getvalue().to_pybytes(), "trend.html": encode(build_page(runs))}
    for name, content in files.items():
        output = FileSystems.join(given.output, name)
        write_file(output, content)
        print(output)
    return 0


def build_page(runs: Sequence[TimelineRun]) -> str:
    """The page of at least one run, in order of time."""
    columns = {name: found.column for run in runs for name, found in run.summary.summary.columns.items()}
    fractions = [run.failure_fraction for run in runs]
    numbers = {column: _numbers(runs, column) for column in columns}
    return render(
        "trend.html",
        runs=runs,
        failures=_chart(runs, fractions, [percent(fraction) for fraction in fractions], least_span=(0, 0.01)),
        columns=[(name, DIRECTIONS[column.direction]) for name, column in columns.items()],
        charts={name: _median_chart(runs, found) for name, found in numbers.items()},
        drift_charts={name: _drift_chart(runs, name) for name in columns},
        medians={name: [row.get("median") for row in found] for name, found in numbers.items()},
    )


def _numbers(runs: Sequence[TimelineRun], column: str) -> list[dict[str, float | None]]:
    """The statistics of a column in each run; empty if the run does not have the column."""
    found = [run.summary.summary.columns.get(column) for run in runs]
    return [statistics(distribution) if distribution else {} for distribution in found]


def _median_chart(runs: Sequence[TimelineRun], numbers: Sequence[dict[str, float | None]]) -> LineChart | None:
    low, middle, high = ([row.get(name) for row in numbers] for name in ("p5", "median", "p95"))
    triples = zip(low, middle, high, strict=True)
    texts = [f"median {number(b)}, 5 % below {number(a)}, 95 % below {number(c)}" for a, b, c in triples]
    return _chart(runs, middle, texts, low, high)


def _drift_chart(runs: Sequence[TimelineRun], column: str) -> LineChart | None:
    distances = [_finite(run.from_first[column].ks) if column in run.from_first else None for run in runs]
    return _chart(runs, distances, [f"KS distance {number(distance)}" for distance in distances], least_span=(0, 0.1))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _chart(
    runs: Sequence[TimelineRun],
    values: Sequence[float | None],
    texts: Sequence[str],
    low: Sequence[float | None] = (),
    high: Sequence[float | None] = (),
    least_span: Sequence[float] = (),
) -> LineChart | None:
    labels = [f"{moment(run.started)}, {run.path}: {text}" for run, text in zip(runs, texts, strict=True)]
    return line_chart(values, labels, [run.verdict or "" for run in runs], low, high, least_span)
