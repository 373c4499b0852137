"""How far a distribution has moved from its baseline: effect sizes from two histograms with the same bins.

Equal distributions have distances of exactly 0, also if one run has several times the pairs of the other.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from transforms.summary.distribution import Distribution

PSI_GROUPS = 10

# An empty group counts as this share, or a single pair in it would make the index infinite.
_LEAST_SHARE = 1e-4


@dataclass(frozen=True)
class Drift:
    """Distances between a distribution and its baseline; 0: none.

    Attributes:
        wasserstein: mean distance by which the finite values have moved, over the baseline's standard deviation;
            infinite if they moved from a constant.
        psi: population stability index, sum of (p - q) ln(p / q) over groups of values, p and q being the shares of
            the pairs in a group: ten groups of about equal baseline shares, and what lies below and above them all.
        ks: Kolmogorov and Smirnov's D, the largest distance between the two cumulative shares, in [0, 1].
    """

    wasserstein: float
    psi: float
    ks: float


def drift(ours: Distribution, baseline: Distribution) -> Drift:
    """The distances of a distribution from its baseline; NaN where one of the two has no values.

    `psi` and `ks` regard infinite values as the smallest and the largest, `wasserstein` leaves them out.
    """
    return Drift(_wasserstein(ours, baseline), _psi(ours, baseline), _ks(ours, baseline))


def _wasserstein(ours: Distribution, baseline: Distribution) -> float:
    if not (ours.finite and baseline.finite):
        return math.nan
    counts, base = Counter(dict(ours.ascending())), Counter(dict(baseline.ascending()))
    moved, below, base_below = 0.0, 0, 0
    for value, following in pairwise(sorted(counts | base)):
        below += counts[value]
        base_below += base[value]
        moved += abs(below / ours.finite - base_below / baseline.finite) * (following - value)
    if moved == 0:
        return 0.0
    return moved / baseline.deviation if baseline.deviation else math.inf


def _ks(ours: Distribution, baseline: Distribution) -> float:
    if not (ours.defined and baseline.defined):
        return math.nan
    largest, below, base_below = 0.0, 0, 0
    for _, number, base_number in _both(ours, baseline):
        below += number
        base_below += base_number
        largest = max(largest, abs(below / ours.defined - base_below / baseline.defined))
    return largest


def _psi(ours: Distribution, baseline: Distribution) -> float:
    if not (ours.defined and baseline.defined):
        return math.nan
    index = 0.0
    for number, base_number in _groups(ours, baseline):
        share = max(number / ours.defined, _LEAST_SHARE)
        base_share = max(base_number / baseline.defined, _LEAST_SHARE)
        index += (share - base_share) * math.log(share / base_share)
    return index


def _groups(ours: Distribution, baseline: Distribution) -> Iterator[tuple[int, int]]:
    """Pairs per group, of ours and of the baseline."""
    wanted = baseline.defined / PSI_GROUPS
    number = base_number = left = 0
    left = baseline.defined
    for _, here, base_here in _both(ours, baseline):
        # What lies below all of the baseline, and above it, is a group of its own.
        if base_here and left == baseline.defined and number:
            yield number, 0
            number = 0
        number += here
        base_number += base_here
        left -= base_here
        if base_number >= wanted or (base_here and not left):
            yield number, base_number
            number = base_number = 0
    if number:
        yield number, 0


def _both(ours: Distribution, baseline: Distribution) -> Iterator[tuple[float, int, int]]:
    """(value, pairs of ours with it, pairs of the baseline with it), ascending, the infinite ones at the ends."""
    counts, base = _with_infinite(ours), _with_infinite(baseline)
    for value in sorted(counts | base):
        yield value, counts[value], base[value]


def _with_infinite(distribution: Distribution) -> Counter[float]:
    counts = Counter(dict(distribution.ascending()))
    # An entry of 0 is not the same as none to the groups.
    infinite = {-math.inf: distribution.negative_infinite, math.inf: distribution.positive_infinite}
    return counts + Counter(infinite)
