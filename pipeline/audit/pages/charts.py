"""Geometry of the charts: numbers in, SVG paths and positions out. The templates hold the markup.

Coordinates refer to a viewBox of `WIDTH` × `HEIGHT`; y grows downwards and the axis lies at `HEIGHT`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.console.numbers import as_given
from transforms.summary.distribution import Distribution

WIDTH, HEIGHT = 320, 96

_MOST_BINS, _FEWEST_BINS = 64, 12
# Beyond this ratio of the largest to the smallest value a linear axis would squeeze most of them into one bin.
_LOG_RATIO = 30.0
# Ratio of the upper edge of a histogram's bin, which is 1 % wide, to its middle.
_HALF_BIN = math.sqrt(1.01)
# Room above the highest point.
_HEADROOM = 6
# Approximate width of a quantile's name, in pixels.
_NAME_WIDTH = 28


@dataclass(frozen=True)
class Bins:
    """The histogram of the finite values of a distribution.

    Attributes:
        low: [N] lower edges, ascending; the bins do not overlap.
        high: [N] upper edges; equal to the lower ones if all values are the same.
        count: [N] number of values.
    """

    low: np.ndarray
    high: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, distribution: Distribution) -> "Bins":
        """The bins of a distribution, the outermost cut off at the exact extremes."""
        middle, count = np.array(list(distribution.ascending()), np.float64).reshape(-1, 2).T
        low, high = np.sort([middle / _HALF_BIN, middle * _HALF_BIN], axis=0)
        bounds = distribution.minimum, distribution.maximum
        return cls(np.clip(low, *bounds), np.clip(high, *bounds), count)

    @property
    def total(self) -> int:
        return int(self.count.sum())

    def share_below(self, values: np.ndarray) -> np.ndarray:
        """The share of all values up to each of these, assuming that values are spread evenly inside a bin."""
        # Interpolation needs every bin to have a width.
        high = np.maximum(self.high, np.nextafter(self.low, np.inf))
        after = np.cumsum(self.count) / self.total
        before = np.concatenate([[0.0], after[:-1]])
        return np.interp(values, np.stack([self.low, high], 1).ravel(), np.stack([before, after], 1).ravel())


@dataclass(frozen=True)
class Tick:
    """A number on an axis: its position, and its text."""

    position: float
    label: str


@dataclass(frozen=True)
class DistributionChart:
    """A distribution, and optionally another one behind it.

    Attributes:
        area: path of this run's distribution.
        outline: path of the baseline's distribution; empty without one.
        ticks: of the x axis.
        quantiles: positions and names of quantiles.
        logarithmic: whether the x axis is logarithmic.
    """

    area: str
    outline: str
    ticks: tuple[Tick, ...]
    quantiles: tuple[Tick, ...]
    logarithmic: bool


def distribution_chart(now: Bins, baseline: Bins | None, quantiles: Sequence[tuple[str, float]]) -> DistributionChart:
    """Draw distributions on shared axes. Both have the same area, however many values they have.

    Args:
        now: the distribution to draw as an area; it must have values.
        baseline: the distribution to draw as an outline; it is left out if it has no values.
        quantiles: (name, value) to mark, within the range of `now`, the most important first.
    """
    drawn = [bins for bins in (now, baseline) if bins is not None and bins.total]
    low, high = min(bins.low[0] for bins in drawn), max(bins.high[-1] for bins in drawn)
    logarithmic = low > 0 and high / low > _LOG_RATIO
    if high <= low:
        margin = abs(low) / 20 or 0.5
        low, high = low - margin, high + margin
    # Rice's rule, within limits that the eye can resolve.
    steps = int(np.clip(2 * now.total ** (1 / 3), _FEWEST_BINS, _MOST_BINS))
    edges = np.geomspace(low, high, steps + 1) if logarithmic else np.linspace(low, high, steps + 1)
    # The ends are rounded; values on them must stay inside.
    edges[0], edges[-1] = low, np.nextafter(high, np.inf)
    shares = [np.diff(bins.share_below(edges), prepend=0.0)[1:] for bins in drawn]
    scale = (HEIGHT - _HEADROOM) / max(share.max() for share in shares)
    paths = [_steps(share * scale) for share in shares]

    def position(value: float) -> float:
        if logarithmic:
            return WIDTH * math.log(value / low) / math.log(high / low)
        return WIDTH * (value - low) / (high - low)

    values = _log_ticks(low, high) if logarithmic else _linear_ticks(low, high)
    return DistributionChart(
        area=paths[0],
        outline=paths[1] if len(paths) > 1 else "",
        ticks=tuple(Tick(round(position(value), 1), as_given(value)) for value in values),
        quantiles=_without_overlaps(Tick(round(position(value), 1), name) for name, value in quantiles),
        logarithmic=logarithmic,
    )


@dataclass(frozen=True)
class Point:
    """One run in a line chart: position, text for people, and its verdict: `pass`, `warn`, `fail` or empty."""

    x: float
    y: float
    label: str
    verdict: str


@dataclass(frozen=True)
class LineChart:
    """A number over several runs.

    Attributes:
        line: path through the points; it is interrupted where a run has no value.
        band: path around the area between two further numbers; empty without them.
        points: the runs that have a value.
        ticks: of the y axis.
    """

    line: str
    band: str
    points: tuple[Point, ...]
    ticks: tuple[Tick, ...]


def line_chart(
    values: Sequence[float | None],
    labels: Sequence[str],
    verdicts: Sequence[str],
    low: Sequence[float | None] = (),
    high: Sequence[float | None] = (),
    least_span: Sequence[float] = (),
) -> LineChart | None:
    """Draw a number over evenly spaced runs; None if no run has a value.

    Args:
        values: one per run; None if the run has none.
        labels: text of each run's point.
        verdicts: verdict of each run, or empty.
        low: lower edge of the band, one per run, or nothing.
        high: upper edge of the band, one per run, or nothing.
        least_span: numbers that the y axis must include, so that a small change does not look large.
    """
    known = [value for value in (*values, *low, *high) if value is not None]
    if not known:
        return None
    bottom, top = min((*known, *least_span)), max((*known, *least_span))
    if bottom == top:
        margin = abs(bottom) / 10 or 0.5
        bottom, top = bottom - margin, top + margin

    def x(index: int) -> float:
        return round(WIDTH / 2 if len(values) == 1 else WIDTH * index / (len(values) - 1), 1)

    def y(value: float) -> float:
        return round(HEIGHT - (HEIGHT - _HEADROOM) * (value - bottom) / (top - bottom), 1)

    edges = [
        (i, lower, upper)
        for i, (lower, upper) in enumerate(zip(low, high, strict=True))
        if lower is not None and upper is not None
    ]
    outline = [(x(i), y(lower)) for i, lower, _ in edges] + [(x(i), y(upper)) for i, _, upper in reversed(edges)]
    line, pen = "", "M"
    for index, value in enumerate(values):
        line += "" if value is None else f"{pen}{x(index)} {y(value)}"
        pen = "M" if value is None else "L"
    return LineChart(
        line=line,
        band="M" + "L".join(f"{a} {b}" for a, b in outline) + "Z" if outline else "",
        points=tuple(
            Point(x(i), y(value), label, verdict)
            for i, (value, label, verdict) in enumerate(zip(values, labels, verdicts, strict=True))
            if value is not None
        ),
        ticks=tuple(Tick(y(value), as_given(value)) for value in _linear_ticks(bottom, top)),
    )


def _without_overlaps(ticks: Iterable[Tick]) -> tuple[Tick, ...]:
    """The ticks. A tick whose name would touch an earlier one loses its name."""
    placed: list[Tick] = []
    for tick in ticks:
        free = all(abs(tick.position - other.position) > _NAME_WIDTH for other in placed if other.label)
        placed.append(tick if free else Tick(tick.position, ""))
    return tuple(placed)


def _steps(heights: np.ndarray) -> str:
    """A histogram's path: up and down from the axis, one step per bin."""
    xs = np.linspace(0, WIDTH, len(heights) + 1)
    steps = "".join(f"V{HEIGHT - height:.1f}H{x:.1f}" for height, x in zip(heights, xs[1:], strict=True))
    return f"M0 {HEIGHT}{steps}V{HEIGHT}Z"


def _linear_ticks(low: float, high: float) -> list[float]:
    """Three to five multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    numbers = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    # Twelve digits hide the rounding error of 0.1 + 0.2.
    return [float(f"{number * step:.12g}") for number in numbers]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, at most six of them."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    step = max(1, math.ceil((last - first + 1) / 6))
    return [10.0**exponent for exponent in range(first, last + 1, step)]
