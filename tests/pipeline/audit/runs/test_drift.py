"""Distances between distributions: 0 for the same data, and what the formulas say for others."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scored import INF, NAN, Values, distribution_of

from pipeline.audit.runs.drift import drift

RANDOM = np.random.default_rng(0)
NORMAL = RANDOM.normal(5, 1, 2000)


def between(ours: Values, baseline: Values):
    return drift(distribution_of(list(ours)), distribution_of(list(baseline)))


@given(values=st.lists(st.floats(width=32), min_size=1, max_size=30), times=st.integers(1, 3))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_the_same_data_have_not_moved(values, times):
    found = between(values[::-1] * times, values)
    distances = [found.wasserstein, found.psi, found.ks]
    assert all(distance == 0 or math.isnan(distance) for distance in distances)
    assert math.isnan(found.wasserstein) == (not any(map(math.isfinite, values)))
    assert math.isnan(found.ks) == math.isnan(found.psi) == all(map(math.isnan, values))


@pytest.mark.parametrize(
    ("ours", "wasserstein", "ks", "psi"),
    [
        (NORMAL + 0.5, 0.5, 0.20, 0.25),
        (NORMAL - 1.0, 1.0, 0.38, 1.0),
        (NORMAL + 20, 20.0, 1.0, 16.0),
        (np.where(np.arange(2000) < 40, 50, NORMAL), 0.9, 0.02, 0.10),
    ],
    ids=["half a deviation up", "one down", "out of sight", "2 % far away"],
)
def test_effect_sizes(ours, wasserstein, ks, psi):
    found = between(ours.tolist(), NORMAL.tolist())
    assert found.wasserstein == pytest.approx(wasserstein, rel=0.03)
    assert found.ks == pytest.approx(ks, rel=0.05)
    assert found.psi == pytest.approx(psi, rel=0.25)


def test_exact_values_of_a_small_case():
    """Two of four values have moved from 1 to 2; the baseline's deviation is 0.5."""
    found = between([1, 2, 2, 2], [1, 1, 1, 2])
    assert found.wasserstein == pytest.approx(0.5 / math.sqrt(3 / 16), rel=0.01)
    assert found.ks == 0.5
    assert found.psi == pytest.approx(0.5 * math.log(3) + 0.5 * math.log(3))


@pytest.mark.parametrize(
    ("ours", "baseline", "wasserstein"),
    [([2.0], [1.0], INF), ([1.0], [1.0, 1.0], 0.0), ([NAN], [1.0], NAN), ([INF], [1.0, 2.0], NAN), ([], [], NAN)],
    ids=["from a constant", "a constant", "no number", "nothing finite", "nothing"],
)
def test_without_a_scale(ours, baseline, wasserstein):
    assert between(ours, baseline).wasserstein == pytest.approx(wasserstein, nan_ok=True)


@pytest.mark.parametrize("infinite", [INF, -INF])
def test_infinite_values_count_as_the_extremes(infinite):
    found = between([1.0, 2.0, infinite, infinite], [1.0, 1.0, 2.0, 2.0])
    assert found.ks == 0.5
    assert found.psi > 1
    assert found.wasserstein == 0


def test_values_below_all_of_a_constant_baseline_show():
    assert between([0.5] * 50 + [1.0] * 50, [1.0] * 100).psi > 1
    assert between([1.0] * 50 + [1.5] * 50, [1.0] * 100).psi > 1
