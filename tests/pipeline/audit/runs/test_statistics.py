"""The mean of differences of pairs and its interval, held against scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from pipeline.audit.runs.statistics import paired_mean

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("count", [2, 3, 5, 9, 10, 11, 12, 31, 300, 100_000])
@pytest.mark.parametrize("draw", [RANDOM.normal, RANDOM.standard_cauchy, lambda size: RANDOM.pareto(1.5, size)])
def test_agrees_with_scipy(count, draw):
    values = 1e-3 * draw(size=count) - 5e-4
    found = paired_mean(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.mean == pytest.approx(values.mean())
    width = expected.high - expected.low
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-4 * width)
    assert found.pairs == count


def test_few_values():
    assert all(math.isnan(number) for number in paired_mean(np.zeros(0))[:3])
    (mean, low, high, count) = paired_mean(np.array([0.25]))
    assert (mean, count) == (0.25, 1)
    assert math.isnan(low)
    assert math.isnan(high)
    assert paired_mean(np.full(7, 0.5)) == (0.5, 0.5, 0.5, 7)
