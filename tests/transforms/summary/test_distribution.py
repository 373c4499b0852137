"""Distributions of one column: exact statistics, quantiles to 0.5 %, and the pairs at both ends."""

import datetime
import json
import math
import random
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scored import INF, NAN, Values, columns_named, distribution_of, table

from transforms.storage.json_files import to_json
from transforms.summary.distribution import QUANTILES, distributions
from transforms.summary.extreme_pairs import EXTREME_PAIRS


def as_float32(values: Values) -> list[float]:
    """The finite values as they are stored."""
    stored = (float(np.float32(value)) for value in values if value is not None)
    return [value for value in stored if math.isfinite(value)]


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

    def test_statistics_are_exact(self, name):
        values = as_float32(DISTRIBUTIONS[name])
        found = distribution_of(DISTRIBUTIONS[name]).to_json()
        assert (found["count"], found["min"], found["max"]) == (len(values), min(values), max(values))
        assert found["mean"] == float(sum(map(Fraction, values)) / len(values))
        assert found["mean"] == pytest.approx(math.fsum(values) / len(values), rel=1e-15)
        exact = [Fraction(value) for value in values]
        assert found["variance"] == float(sum((x - sum(exact) / len(exact)) ** 2 for x in exact) / len(exact))

    def test_what_is_no_finite_value_is_counted_apart(self, name):
        values = DISTRIBUTIONS[name]
        found = distribution_of(values)
        assert found.null == values.count(None)
        assert found.nan == sum(value is not None and math.isnan(value) for value in values)
        assert found.positive_infinite == values.count(INF)
        assert found.negative_infinite == values.count(-INF)
        assert found.zero == as_float32(values).count(0)
        assert found.pairs == len(values)


@pytest.mark.parametrize("values", [[], [None], [NAN, INF, -INF, None]], ids=["empty", "null", "nothing finite"])
def test_no_finite_value(values):
    found = distribution_of(values)
    bins = {"bins": [], "counts": []}
    assert found.to_json() | {"worst": [], "best": []} == {
        "count": 0,
        "null": values.count(None),
        "nan": found.nan,
        "infinite": values.count(INF) + values.count(-INF),
        "negative_infinite": values.count(-INF),
        "zero": 0,
        "min": None,
        "max": None,
        "mean": None,
        "variance": None,
        "quantiles": {},
        "worst": [],
        "best": [],
        "sum": "0",
        "sum_of_squares": "0",
        "histogram": {"negative": bins, "positive": bins},
    }
    assert math.isnan(found.quantile(0.5))
    assert math.isnan(found.mean)
    assert math.isnan(found.deviation)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99, 1.0])
def test_values_outside_of_limits(name, share):
    """Exact unless values lie in the limit's own bin, 1 % wide."""
    values = [float(np.float32(v)) for v in DISTRIBUTIONS[name] if v is not None and not math.isnan(v)]
    limit = sorted(values)[round(share * (len(values) - 1))]
    found = distribution_of(DISTRIBUTIONS[name])
    near = sum(abs(value - limit) <= 0.011 * abs(limit) for value in values if math.isfinite(value))
    assert abs(found.outside(most=limit) - sum(value > limit for value in values)) <= near
    assert abs(found.outside(least=limit) - sum(value < limit for value in values)) <= near
    assert (found.outside(most=limit) > 0) == any(value > limit for value in values)
    assert (found.outside(least=limit) > 0) == any(value < limit for value in values)
    assert found.outside() == 0


class TestExtremePairs:
    @staticmethod
    def worst(values: Values, column: str = "mae") -> list[str]:
        return [row["id"] for row in distribution_of(values, column).to_json()["worst"]]

    @pytest.mark.parametrize(
        ("column", "higher"),
        [
            ("mae", False),
            ("psnr", True),
            ("ssim", True),
            ("tv", False),
            ("objective", False),
            ("pixel_grad_l2", False),
            ("objective_of_saved", False),
            ("ssim_optimized", True),
            ("steps", False),
        ],
    )
    def test_direction(self, column, higher):
        assert self.worst([2.0, 3.0, 1.0], column) == (["id-2", "id-0", "id-1"] if higher else ["id-1", "id-0", "id-2"])

    @given(values=st.lists(st.one_of(st.none(), st.floats(width=32)), max_size=40))
    @settings(max_examples=50, deadline=None, derandomize=True)
    def test_the_best_are_the_worst_of_the_opposite(self, values):
        opposite = [None if value is None else -value for value in values]
        best = [row["id"] for row in distribution_of(values).to_json()["best"]]
        assert best == self.worst(opposite)
        assert best == [row["id"] for row in distribution_of(opposite, "ssim").to_json()["best"]]

    def test_as_many_as_promised(self):
        values = list(range(30))
        random.Random(0).shuffle(values)
        expected = sorted(range(30), key=lambda n: -values[n])[:EXTREME_PAIRS]
        assert self.worst(values) == [f"id-{n}" for n in expected]

    @pytest.mark.parametrize("value", [0.0, 1.0, INF])
    def test_ties_go_by_source(self, value):
        assert self.worst([value] * 40) == [f"id-{n}" for n in range(EXTREME_PAIRS)]

    def test_ties_at_the_end_of_the_list(self):
        assert self.worst([1.0] * 5 + [2.0] * 8) == [*(f"id-{n}" for n in range(5, 13)), "id-0", "id-1"]

    def test_what_is_no_value_is_not_bad(self):
        assert self.worst([NAN, 1.0, None, 2.0, NAN]) == ["id-3", "id-1"]

    def test_infinity_is_the_worst_or_the_best(self):
        assert self.worst([1.0, INF, 2.0]) == ["id-1", "id-2", "id-0"]
        assert self.worst([1.0, INF, 2.0], "psnr") == ["id-0", "id-2", "id-1"]

    def test_rows_are_whole(self):
        metrics = table({"mae": [0.5], "psnr": [INF]}, kept=pa.array(["label"]))
        (row,) = distributions(metrics, columns_named("mae"))["mae"].to_json()["worst"]
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
        distribution = distributions(table({"mae": [0.5]}, kept=kept), columns_named("mae"))["mae"]
        (row,) = json.loads(to_json(distribution.to_json()))["worst"]
        assert row["kept"] == expected
