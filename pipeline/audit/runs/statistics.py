"""Statistics of a column of the metrics, and how they changed."""

from typing import NamedTuple

import numpy as np

from transforms.summary.distribution import Distribution

QUANTILES = {"p1": 0.01, "p5": 0.05, "median": 0.5, "p95": 0.95, "p99": 0.99}
STATISTICS = (*QUANTILES, "mean", "min", "max")


def statistics(distribution: Distribution) -> dict[str, float | None]:
    """Quantiles, mean and extremes of the finite values, by name; None for each if all are infinite or missing."""
    if not distribution.finite:
        return dict.fromkeys(STATISTICS)
    numbers = [distribution.quantile(q) for q in QUANTILES.values()]
    numbers += [distribution.mean, distribution.minimum, distribution.maximum]
    return dict(zip(STATISTICS, numbers, strict=True))


def share(part: int, whole: int) -> float | None:
    """A part of a whole; None if the whole is 0."""
    return part / whole if whole else None


def relative_change(now: float | None, before: float | None) -> float | None:
    """(now - before) / |before|; None if one of them is unknown, or if only `before` is 0."""
    if now is None or before is None:
        return None
    if now == before:
        return 0.0
    return (now - before) / abs(before) if before else None


class PairedMean(NamedTuple):
    """The mean of the differences of pairs, and the ends of its 95 % interval.

    Attributes:
        mean: NaN without values.
        low: NaN with fewer than two values.
        high: NaN with fewer than two values.
        pairs: number of pairs.
    """

    mean: float
    low: float
    high: float
    pairs: int


# The 97.5 % quantiles of Student's t with 1 to 9 degrees of freedom.
_T = (12.70620, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157)


def paired_mean(differences: np.ndarray) -> PairedMean:
    """The mean of the differences of pairs with its 95 % interval by Student's t: mean ± t s / √n.

    It takes pairs as independent. With few of them the percentiles of a bootstrap would hold the true mean less often,
    for skewed and heavy-tailed differences as well; with hundreds, both come close to 95 %. This one needs no seed.

    Args:
        differences: [N] finite values.
    """
    count = len(differences)
    mean = float(differences.mean()) if count else float("nan")
    if count < 2:
        return PairedMean(mean, float("nan"), float("nan"), count)
    half = _t(count - 1) * float(differences.std(ddof=1)) / count**0.5
    return PairedMean(mean, mean - half, mean + half, count)


def _t(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, to 1e-4: for many degrees of freedom a series (Abramowitz, Stegun 26.7.5)."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    return 1.959964 + 2.372271 / freedom + 2.822499 / freedom**2 + 2.555850 / freedom**3
