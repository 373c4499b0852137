"""How far a distribution has moved from its baseline: effect sizes from two histograms with the same bins.

Equal distributions have distances of exactly 0, even if one run has several times the pairs of the other.
"""

import math
from dataclasses import dataclass

import numpy as np

from transforms.summary.distribution import Distribution

PSI_GROUPS = 10

# An empty group counts as this share; otherwise a single pair in it would make the index infinite.
_LEAST_SHARE = 1e-4


@dataclass(frozen=True)
class Drift:
    """Distances between a distribution and its baseline; 0 means no drift.

    Attributes:
        wasserstein: mean distance by which the finite values have moved, divided by the baseline's standard
            deviation; infinite if they moved from a constant.
        psi: population stability index, the sum of (p - q) ln(p / q) over groups of values; p and q are the shares of
            the pairs in a group. There are ten groups of about equal baseline shares, one below and one above them.
        ks: Kolmogorov-Smirnov statistic, the largest distance between the two cumulative shares, in [0, 1].
    """

    wasserstein: float
    psi: float
    ks: float


def drift(ours: Distribution, baseline: Distribution) -> Drift:
    """The distances of a distribution from its baseline; NaN if one of the two has no values.

    `psi` and `ks` take infinite values as the smallest and the largest; `wasserstein` leaves them out.
    """
    values = sorted({value for value, _ in (*ours.ascending(), *baseline.ascending())})
    counts, base = (_counts(distribution, values) for distribution in (ours, baseline))
    wasserstein = psi = ks = math.nan
    if ours.finite and baseline.finite:
        # The first and the last entry are the infinite values.
        apart = np.cumsum(counts[1:-1]) / ours.finite - np.cumsum(base[1:-1]) / baseline.finite
        moved = float(np.abs(apart[:-1]) @ np.diff(values))
        wasserstein = moved / baseline.deviation if moved and baseline.deviation else moved and math.inf
    if ours.defined and baseline.defined:
        apart = np.cumsum(counts) / ours.defined - np.cumsum(base) / baseline.defined
        ks = float(np.abs(apart).max())
        psi = _psi(counts, base)
    return Drift(wasserstein, psi, ks)


def _counts(distribution: Distribution, values: list[float]) -> np.ndarray:
    """int64 [len(values) + 2]: number of pairs with -inf, with each of the values, and with +inf."""
    counts = dict(distribution.ascending())
    finite = [counts.get(value, 0) for value in values]
    return np.array([distribution.negative_infinite, *finite, distribution.positive_infinite], np.int64)


def _psi(counts: np.ndarray, base: np.ndarray) -> float:
    below, base_below = (np.concatenate([[0], np.cumsum(numbers)]) for numbers in (counts, base))
    total = base_below[-1]
    # A group ends at the first value that gives it its share of the baseline.
    ends = [0, int(np.flatnonzero(base)[0])]
    while base_below[ends[-1]] < total:
        wanted = min(base_below[ends[-1]] + total / PSI_GROUPS, total)
        ends.append(int(np.searchsorted(base_below, wanted)))
    ends.append(len(counts))
    shares = np.maximum(np.diff(below[ends]) / below[-1], _LEAST_SHARE)
    base_shares = np.maximum(np.diff(base_below[ends]) / total, _LEAST_SHARE)
    return float(np.sum((shares - base_shares) * np.log(shares / base_shares)))
