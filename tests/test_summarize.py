"""Summaries: exact counts, sums and worst pairs, quantiles to 0.5 %, and the same in whatever order they are merged."""

import datetime
import json
import math
import random
from dataclasses import replace
from fractions import Fraction

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.finish import to_json
from transforms.schema import Chunk, ScoredChunk, metrics_schema, pair_failure
from transforms.score import PRECISION_KEY
from transforms.summarize import QUANTILES, WORST_PAIRS, Distribution, SummarizeChunks, Summary, higher_is_better

Values = list[float | None]
INF, NAN = math.inf, math.nan


def table(columns: dict[str, Values], start: int = 0, kept: pa.Array | None = None, precision: str = "float32"):
    """Metrics with these columns; sources count from `start`."""
    count = len(next(iter(columns.values())))
    keep = [] if kept is None else [pa.field("kept", kept.type)]
    rows = {
        "id": [f"id-{start + n}" for n in range(count)],
        "source": [f"in#{start + n:04}" for n in range(count)],
        "height": [4] * count,
        "width": [5] * count,
        **({} if kept is None else {"kept": kept}),
        **{name: pa.array(values, pa.float32(), from_pandas=False) for name, values in columns.items()},
        "notes": [["note"]] * count,
    }
    schema = metrics_schema(tuple(columns), keep).with_metadata({PRECISION_KEY: precision})
    return pa.table(rows, schema=schema)


def chunk_of(metrics: pa.Table, failures=(), pairs: int | None = None, name: str = "in") -> ScoredChunk:
    listed = len(metrics) + len(failures) if pairs is None else pairs
    return ScoredChunk(Chunk(name, f"{name}.parquet", "parquet", 0, listed), metrics, tuple(failures))


def summary_of(*chunks: ScoredChunk, columns: tuple[str, ...] = ("mae",)) -> Summary:
    combine = SummarizeChunks(columns)
    accumulator = combine.create_accumulator()
    for chunk in chunks:
        accumulator = combine.add_input(accumulator, chunk)
    return combine.extract_output(accumulator)


def distribution_of(values: Values, column: str = "mae") -> Distribution:
    return Distribution.of_column(table({column: values}), column)


def as_float32(values: Values) -> list[float]:
    """The finite values as they are stored."""
    stored = (float(np.float32(value)) for value in values if value is not None)
    return [value for value in stored if math.isfinite(value)]


FLOAT32 = st.one_of(st.none(), st.floats(width=32), st.sampled_from([0.0, -0.0, 1.0, 2.0, INF, -INF, NAN]))


class TestMerging:
    @given(values=st.lists(FLOAT32, max_size=60), seed=st.integers(0, 2**32), data=st.data())
    @settings(max_examples=150, deadline=None, derandomize=True)
    def test_any_chunks_in_any_order_and_grouping(self, values, seed, data):
        """The same text, to the last digit, although sums are of floats and worst pairs are cut to a few."""
        columns = ("mae", "psnr")
        metrics = table({"mae": values, "psnr": values[::-1]})
        cuts = data.draw(st.lists(st.integers(0, len(values)), max_size=6).map(sorted))
        parts = [metrics.slice(a, b - a) for a, b in zip([0, *cuts], [*cuts, len(values)], strict=True)]
        whole = to_json(summary_of(chunk_of(metrics), columns=columns).to_json())
        shuffle = random.Random(seed)
        combine = SummarizeChunks(columns)
        pending = [combine.add_input(combine.create_accumulator(), chunk_of(part)) for part in parts]
        while len(pending) > 1:
            shuffle.shuffle(pending)
            number = shuffle.randint(1, len(pending))
            pending = [combine.merge_accumulators(pending[:number]), *pending[number:]]
        assert to_json(combine.extract_output(pending[0]).to_json()) == whole

    def test_an_accumulator_merged_from_stays_as_it_was(self):
        combine = SummarizeChunks(("mae",))
        one, two = (summary_of(chunk_of(table({"mae": [value]}, start))) for start, value in enumerate((1.0, 2.0)))
        before = to_json(one.to_json())
        combine.merge_accumulators([one, two])
        assert to_json(one.to_json()) == before

    @pytest.mark.parametrize("count", [0, 1, 5])
    def test_on_an_engine(self, count):
        failure = pair_failure("x", "in#9", "decode", "corrupt", "")
        chunks = [chunk_of(table({"mae": [n, None]}, 2 * n), (failure,), name=f"c{n}") for n in range(count)]
        expected = to_json(summary_of(*chunks).to_json())

        def check(found):
            assert [to_json(summary.to_json()) for summary in found] == [expected]

        with beam.Pipeline(FnApiRunner(), PipelineOptions([])) as pipeline:
            # Typed, for an empty list tells no type.
            source = pipeline | beam.Create(chunks).with_output_types(ScoredChunk)
            assert_that(source | beam.CombineGlobally(SummarizeChunks(("mae",))), check)


def spread(exponents: np.ndarray) -> Values:
    return (10.0**exponents).tolist()


RANDOM = np.random.default_rng(0)
DISTRIBUTIONS: dict[str, Values] = {
    "one value": [0.3],
    "two values": [0.3, 7.0],
    "constant": [0.1] * 50,
    "constant negative": [-0.1] * 50,
    "all zero": [0.0] * 30,
    "zeros and one": [0.0] * 99 + [5.0],
    "uniform": RANDOM.random(1000).tolist(),
    "lognormal": RANDOM.lognormal(-4, 2, 1000).tolist(),
    "normal, both signs": RANDOM.normal(size=1001).tolist(),
    "negative only": (-RANDOM.lognormal(size=500)).tolist(),
    "half of it zero": [0.0] * 250 + RANDOM.random(250).tolist(),
    "tiny": spread(RANDOM.uniform(-44, -37, 300)),
    "huge": spread(RANDOM.uniform(30, 38, 300)),
    "over the whole range": spread(RANDOM.uniform(-44, 38, 300)),
    "edges of bins": [1.01**n for n in range(-50, 50)],
    "with infinities": [*RANDOM.random(100).tolist(), INF, INF, -INF],
    "with NaN and null": [*RANDOM.random(100).tolist(), NAN, NAN, None],
    "SSIM around 0": RANDOM.uniform(-1e-3, 1e-3, 400).tolist(),
    "two far apart": [1e-30] * 50 + [1e30] * 50,
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
class TestDistribution:
    @pytest.mark.parametrize("quantile", QUANTILES)
    def test_quantiles(self, name, quantile):
        values = sorted(as_float32(DISTRIBUTIONS[name]))
        # The smallest value that at least this share of the values do not exceed.
        exact = values[math.ceil(Fraction(str(quantile)) * len(values)) - 1]
        found = distribution_of(DISTRIBUTIONS[name]).to_json()["quantiles"][f"{quantile:g}"]
        assert abs(found - exact) <= 0.005 * abs(exact)
        assert values[0] <= found <= values[-1]

    def test_minimum_maximum_and_mean_are_exact(self, name):
        values = as_float32(DISTRIBUTIONS[name])
        found = distribution_of(DISTRIBUTIONS[name]).to_json()
        assert (found["count"], found["min"], found["max"]) == (len(values), min(values), max(values))
        assert found["mean"] == float(sum(map(Fraction, values)) / len(values))
        assert found["mean"] == pytest.approx(math.fsum(values) / len(values), rel=1e-15)

    def test_what_is_no_finite_value_is_counted_apart(self, name):
        values = DISTRIBUTIONS[name]
        found = distribution_of(values)
        assert found.null == values.count(None)
        assert found.nan == sum(value is not None and math.isnan(value) for value in values)
        assert found.infinite == sum(value in (INF, -INF) for value in values)
        assert found.finite + found.null + found.nan + found.infinite == len(values)


@pytest.mark.parametrize("values", [[], [None], [NAN, INF, -INF, None]], ids=["empty", "null", "nothing finite"])
def test_no_finite_value(values):
    found = distribution_of(values)
    assert found.to_json() | {"worst": []} == {
        "count": 0,
        "null": values.count(None),
        "nan": found.nan,
        "infinite": found.infinite,
        "min": None,
        "max": None,
        "mean": None,
        "quantiles": {},
        "worst": [],
    }
    assert math.isnan(found.quantile(0.5))


class TestWorstPairs:
    @staticmethod
    def worst(values: Values, column: str = "mae") -> list[str]:
        return [row["id"] for row in distribution_of(values, column).to_json()["worst"]]

    @pytest.mark.parametrize(
        ("column", "higher"),
        [("mae", False), ("psnr", True), ("ssim", True), ("tv", False), ("objective", False), ("pixel_grad_l2", False)],
    )
    def test_direction(self, column, higher):
        assert higher_is_better(column) is higher
        assert self.worst([2.0, 3.0, 1.0], column) == (["id-2", "id-0", "id-1"] if higher else ["id-1", "id-0", "id-2"])

    def test_as_many_as_promised(self):
        values = list(range(30))
        random.Random(0).shuffle(values)
        expected = sorted(range(30), key=lambda n: -values[n])[:WORST_PAIRS]
        assert self.worst(values) == [f"id-{n}" for n in expected]

    @pytest.mark.parametrize("value", [0.0, 1.0, INF])
    def test_ties_go_by_source(self, value):
        assert self.worst([value] * 40) == [f"id-{n}" for n in range(WORST_PAIRS)]

    def test_ties_at_the_end_of_the_list(self):
        assert self.worst([1.0] * 5 + [2.0] * 8) == [*(f"id-{n}" for n in range(5, 13)), "id-0", "id-1"]

    def test_what_is_no_value_is_not_bad(self):
        assert self.worst([NAN, 1.0, None, 2.0, NAN]) == ["id-3", "id-1"]

    def test_infinity_is_the_worst_or_the_best(self):
        assert self.worst([1.0, INF, 2.0]) == ["id-1", "id-2", "id-0"]
        assert self.worst([1.0, INF, 2.0], "psnr") == ["id-0", "id-2", "id-1"]

    def test_rows_are_whole(self):
        metrics = table({"mae": [0.5], "psnr": [INF]}, kept=pa.array(["label"]))
        (row,) = Distribution.of_column(metrics, "mae").to_json()["worst"]
        assert row == {
            "id": "id-0",
            "source": "in#0000",
            "height": 4,
            "width": 5,
            "kept": "label",
            "mae": 0.5,
            "psnr": None,
            "notes": ["note"],
        }

    @pytest.mark.parametrize(
        ("kept", "expected"),
        [
            (pa.array([True]), True),
            (pa.array([2**64 - 1], pa.uint64()), 2**64 - 1),
            (pa.array([0.5], pa.float16()), 0.5),
            (pa.array([NAN]), None),
            (pa.array([-INF], pa.float32()), None),
            (pa.array([None], pa.string()), None),
            (pa.array([datetime.date(2024, 2, 29)]), "2024-02-29"),
            (pa.array([10**8], pa.int32()).cast(pa.date32()), "<value out of range: 100000000>"),
            (pa.array([1], pa.timestamp("ns")), "1970-01-01 00:00:00.000000001"),
            (pa.array([0], pa.timestamp("ms", "Europe/Berlin")), "1970-01-01 00:00:00.000Z"),
            (pa.array([0], pa.timestamp("us", "Mars/Olympus_Mons")), "1970-01-01 00:00:00.000000Z"),
            (pa.array([None], pa.timestamp("us", "UTC")), None),
        ],
        ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
    )
    def test_kept_fields_are_json(self, kept, expected):
        distribution = Distribution.of_column(table({"mae": [0.5]}, kept=kept), "mae")
        (row,) = json.loads(to_json(distribution.to_json()))["worst"]
        assert row["kept"] == expected


class TestSummary:
    def failures(self, *reasons: str):
        return [pair_failure(f"f{n}", f"in#f{n}", "decode", reason, "") for n, reason in enumerate(reasons)]

    def unreadable(self, path: str, reason: str = "unreadable_file"):
        return [replace(pair_failure(path, path, "read", reason, ""), scope="file")]

    def test_counts(self):
        summary = summary_of(
            chunk_of(table({"mae": [1.0, 2.0]}), self.failures("corrupt", "truncated", "corrupt")),
            chunk_of(table({"mae": [3.0]}, 2)),
            chunk_of(table({"mae": []}), self.failures("corrupt")),
        )
        counts = {"listed": 7, "read": 7, "scored": 3, "failed": 4, "unread": 0, "files_failed": 0}
        assert summary.counts() == counts
        found = summary.to_json()
        assert found["failures"] == {"corrupt": 3, "truncated": 1}
        assert found["losses"]["mae"]["count"] == 3
        assert summary.chunks == 3

    def test_unreadable_chunks_and_files(self):
        summary = summary_of(
            chunk_of(table({"mae": [1.0]})),
            # Two chunks of one file are gone, and the listing of another stopped after 5 records.
            chunk_of(table({"mae": []}), self.unreadable("gone.parquet"), pairs=256),
            chunk_of(table({"mae": []}), self.unreadable("gone.parquet"), pairs=100),
            chunk_of(table({"mae": []}), self.unreadable("cut.tfrecord"), pairs=0),
        )
        counts = {"listed": 357, "read": 1, "scored": 1, "failed": 0, "unread": 356, "files_failed": 2}
        assert summary.counts() == counts
        found = summary.to_json()
        assert found["failed_files"] == {"cut.tfrecord": "unreadable_file", "gone.parquet": "unreadable_file"}
        assert found["failures"] == {}

    @pytest.mark.parametrize("order", [1, -1])
    def test_one_file_with_two_reasons(self, order):
        chunks = [chunk_of(table({"mae": []}), self.unreadable("x", reason), pairs=1) for reason in ("b", "a")]
        assert summary_of(*chunks[::order]).failed_files == {"x": "a"}

    def test_lost_pairs_show(self):
        """Neither scored nor failed: the run must notice, so they are not counted as unread."""
        summary = summary_of(chunk_of(table({"mae": [1.0]}), pairs=3))
        assert (summary.read, summary.scored + summary.failed) == (3, 1)

    def test_precisions_are_those_of_chunks_with_pairs(self):
        tables = [table({"mae": values}, precision=p) for values, p in (([1.0], "bfloat16"), ([], "x"), ([1.0], "a"))]
        assert summary_of(*map(chunk_of, tables)).to_json()["precision"] == ["a", "bfloat16"]

    def test_columns_keep_their_order(self):
        columns = ("sobel_l1", "mae", "objective")
        chunk = chunk_of(table({name: [1.0] for name in columns}))
        assert tuple(summary_of(chunk, columns=columns).to_json()["losses"]) == columns

    def test_empty(self):
        summary = summary_of()
        assert set(summary.counts().values()) == {0}
        assert json.loads(to_json(summary.to_json()))["losses"]["mae"]["worst"] == []

    @given(values=st.lists(FLOAT32, max_size=20))
    @settings(max_examples=50, deadline=None, derandomize=True)
    def test_always_strict_json(self, values):
        text = json.dumps(summary_of(chunk_of(table({"mae": values}))).to_json(), allow_nan=False)
        assert json.loads(text)["counts"]["scored"] == len(values)
