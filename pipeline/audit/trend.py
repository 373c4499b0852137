"""`pairloss audit trend RUN...`: runs of one dataset over time, as one page and one table."""

import math
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystems import FileSystems

from pipeline.audit.arguments import VerbParser, path
from pipeline.audit.pages.charts import CourseChart, course_chart
from pipeline.audit.pages.render import encode, moment, number, percent, render
from pipeline.audit.pages.views import DIRECTIONS, statistics
from pipeline.audit.runs.summaries import write_file
from pipeline.audit.runs.timeline import Stop, read_course, tabulate
from pipeline.errors import UsageError


def main(argv: Sequence[str]) -> int:
    """Write trend.html and trend.parquet and print their paths; return the exit code.

    Raises:
        UsageError: a run cannot be read or is given twice, or a file cannot be written.
    """
    parser = VerbParser("trend", "Gather runs of one dataset: how medians, failures and drift went over time.")
    parser.add_argument("runs", metavar="RUN", nargs="+", type=path, help="directories of runs, in any order")
    parser.add_argument("--output", required=True, type=path, metavar="DIR", help="for trend.html and trend.parquet")
    given = parser.parse_args(argv)
    if repeated := sorted({run for run in given.runs if given.runs.count(run) > 1}):
        raise UsageError(f"{', '.join(repeated)} is given twice")
    stops = read_course(given.runs)
    sink = pa.BufferOutputStream()
    pq.write_table(tabulate(stops), sink, compression="zstd")
    files = {"trend.parquet": sink.getvalue().to_pybytes(), "trend.html": encode(build_page(stops))}
    for name, content in files.items():
        output = FileSystems.join(given.output, name)
        write_file(output, content)
        print(output)
    return 0


def build_page(stops: Sequence[Stop]) -> str:
    """The page of runs in the order of time, at least one."""
    columns = {name: found.column for stop in stops for name, found in stop.summary.summary.columns.items()}
    fractions = [stop.failure_fraction for stop in stops]
    numbers = {column: _numbers(stops, column) for column in columns}
    return render(
        "trend.html",
        stops=stops,
        failures=_chart(stops, fractions, [percent(fraction) for fraction in fractions], least_span=(0, 0.01)),
        columns=[(name, DIRECTIONS[column.direction]) for name, column in columns.items()],
        charts={name: _median_chart(stops, found) for name, found in numbers.items()},
        drift_charts={name: _drift_chart(stops, name) for name in columns},
        medians={name: [row.get("median") for row in found] for name, found in numbers.items()},
    )


def _numbers(stops: Sequence[Stop], column: str) -> list[dict[str, float | None]]:
    """The statistics of a column per run; nothing where the run does not have it."""
    found = [stop.summary.summary.columns.get(column) for stop in stops]
    return [statistics(distribution) if distribution else {} for distribution in found]


def _median_chart(stops: Sequence[Stop], numbers: Sequence[dict[str, float | None]]) -> CourseChart | None:
    low, middle, high = ([row.get(name) for row in numbers] for name in ("p5", "median", "p95"))
    triples = zip(low, middle, high, strict=True)
    texts = [f"median {number(b)}, 5 % below {number(a)}, 95 % below {number(c)}" for a, b, c in triples]
    return _chart(stops, middle, texts, low, high)


def _drift_chart(stops: Sequence[Stop], column: str) -> CourseChart | None:
    distances = [_finite(stop.from_first[column].ks) if column in stop.from_first else None for stop in stops]
    return _chart(stops, distances, [f"KS distance {number(distance)}" for distance in distances], least_span=(0, 0.1))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _chart(
    stops: Sequence[Stop],
    values: Sequence[float | None],
    texts: Sequence[str],
    low: Sequence[float | None] = (),
    high: Sequence[float | None] = (),
    least_span: Sequence[float] = (),
) -> CourseChart | None:
    labels = [f"{moment(stop.started)}, {stop.path}: {text}" for stop, text in zip(stops, texts, strict=True)]
    return course_chart(values, labels, [stop.verdict or "" for stop in stops], low, high, least_span)
