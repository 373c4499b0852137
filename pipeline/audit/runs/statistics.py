"""Statistics of a column of the metrics, and how they changed."""

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
