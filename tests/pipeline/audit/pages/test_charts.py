"""The geometry of the charts, by their numbers."""

import re

import numpy as np
import pytest
from support.scored import columns_named

from pipeline.audit.pages.charts import HEIGHT, WIDTH, Bins, distribution_chart, line_chart
from transforms.summary.distribution import Distribution


def bins_of(*bins: tuple[float, float, int]) -> Bins:
    low, high, count = np.array(bins, np.float64).T
    return Bins(low, high, count)


def steps(path: str) -> list[tuple[float, float]]:
    """(height, right end) of each step of a distribution's path."""
    return [(HEIGHT - float(y), float(x)) for y, x in re.findall(r"V([\d.]+)H([\d.]+)", path)]


class TestBins:
    @pytest.mark.parametrize(
        ("bins", "value", "share"),
        [
            ([(0.0, 1.0, 4)], 0.25, 0.25),
            ([(0.0, 1.0, 1), (2.0, 3.0, 3)], 1.5, 0.25),
            ([(0.0, 0.0, 1), (2.0, 3.0, 3)], 1.0, 0.25),
            ([(-2.0, -1.0, 1), (1.0, 2.0, 1)], 0.0, 0.5),
            ([(5.0, 5.0, 7)], 5.1, 1.0),
            ([(5.0, 5.0, 7)], 4.9, 0.0),
        ],
    )
    def test_share_below(self, bins, value, share):
        assert bins_of(*bins).share_below(np.array([value]))[0] == pytest.approx(share)

    def test_of_a_distribution_ends_at_its_extremes(self):
        distribution = Distribution(columns_named("mae")[0], zero=2, minimum=-0.5, maximum=1.0)
        distribution.negative[-70] = 1
        distribution.positive[0] = 3
        found = Bins.of(distribution)
        assert (found.low[0], found.high[-1], found.total) == (-0.5, 1.0, 6)
        assert (np.diff(found.low) > 0).all()


class TestDistribution:
    @pytest.mark.parametrize(
        "bins", [[(0.1, 0.2, 5), (0.3, 0.9, 50)], [(1e-6, 1e-5, 9), (1.0, 2.0, 1)], [(3.0, 3.0, 4)], [(0.0, 0.0, 4)]]
    )
    def test_fills_width_and_height(self, bins):
        drawn = steps(distribution_chart(bins_of(*bins), None, []).area)
        assert max(height for height, _ in drawn) == pytest.approx(HEIGHT - 6, abs=0.1)
        assert drawn[-1][1] == WIDTH

    def test_height_is_share(self):
        drawn = steps(distribution_chart(bins_of((0.0, 1.0, 30), (1.0, 2.0, 10)), None, []).area)
        assert [height for height, _ in drawn] == pytest.approx([90] * 6 + [30] * 6, abs=0.1)

    def test_baseline_of_other_size_has_the_same_area(self):
        chart = distribution_chart(bins_of((0.0, 1.0, 1000)), bins_of((0.0, 1.0, 10)), [])
        assert chart.area == chart.outline

    def test_baseline_without_values_is_left_out(self):
        nothing = Bins(np.zeros(0), np.zeros(0), np.zeros(0))
        assert distribution_chart(bins_of((0.0, 1.0, 9)), nothing, []).outline == ""

    @pytest.mark.parametrize(
        ("low", "high", "logarithmic", "labels"),
        [
            (0.0, 1.0, False, ["0", "0.5", "1"]),
            (20.0, 40.0, False, ["20", "25", "30", "35", "40"]),
            (-1.0, 1.0, False, ["-1", "-0.5", "0", "0.5", "1"]),
            (1e-4, 1.0, True, ["0.0001", "0.001", "0.01", "0.1", "1"]),
        ],
    )
    def test_axes(self, low, high, logarithmic, labels):
        chart = distribution_chart(bins_of((low, high, 5)), None, [])
        assert chart.logarithmic == logarithmic
        assert [tick.label for tick in chart.ticks] == labels
        assert all(0 <= tick.position <= WIDTH for tick in chart.ticks)

    def test_names_of_quantiles_do_not_overlap(self):
        chart = distribution_chart(bins_of((0.0, 1.0, 5)), None, [("median", 0.5), ("p5", 0.49), ("p95", 1.0)])
        assert [(tick.position, tick.label) for tick in chart.quantiles] == [(160, "median"), (156.8, ""), (320, "p95")]


class TestLine:
    def test_line_breaks_where_there_is_no_value(self):
        chart = line_chart([1.0, 2.0, None, 1.0], list("abcd"), ["", "fail", "", ""])
        assert chart.line == f"M0.0 {HEIGHT}.0L106.7 6.0M320.0 {HEIGHT}.0"
        assert [(point.label, point.verdict) for point in chart.points] == [("a", ""), ("b", "fail"), ("d", "")]

    def test_band(self):
        chart = line_chart([1.0, 1.0], ["a", "b"], ["", ""], [0.0, 0.0], [2.0, 2.0])
        assert chart.band == "M0.0 96.0L320.0 96.0L320.0 6.0L0.0 6.0Z"

    def test_least_span_keeps_small_changes_small(self):
        chart = line_chart([0.0, 0.01], ["a", "b"], ["", ""], least_span=(0, 0.1))
        assert chart.points[1].y == pytest.approx(HEIGHT - 9)

    def test_no_values(self):
        assert line_chart([None], ["a"], [""]) is None
