"""Geometry of the charts: numbers in, SVG paths and positions out. The templates hold the markup.

Coordinates are those of a viewBox of `WIDTH` × `HEIGHT`; y grows downwards and the axis lies at `HEIGHT`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from transforms.summary.distribution import Distribution

WIDTH, HEIGHT = 320, 96

_MOST_BINS, _FEWEST_BINS = 64, 12
# Beyond this ratio of the largest to the smallest value a linear axis would squeeze most of them into one bin.
_LOG_RATIO = 30.0
# From the middle of one of the histogram's bins, which are 1 % wide, to its edges.
_HALF_BIN = math.sqrt(1.01)
# Room above the highest point.
_HEADROOM = 6
# Of the name of a mark, about.
_NAME_WIDTH = 28


@dataclass(frozen=True)
class Masses:
    """Where the finite values of a distribution lie.

    Attributes:
        low: [N] lower edges of bins, ascending; the bins do not overlap.
        high: [N] upper edges; equal to the lower one where all values are the same.
        count: [N] number of values.
    """

    low: np.ndarray
    high: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, distribution: Distribution) -> "Masses":
        """The bins of a distribution's histogram, the outermost cut at the exact extremes."""
        middle, count = np.array(list(distribution.ascending()), np.float64).reshape(-1, 2).T
        low, high = np.sort([middle / _HALF_BIN, middle * _HALF_BIN], axis=0)
        bounds = distribution.minimum, distribution.maximum
        return cls(np.clip(low, *bounds), np.clip(high, *bounds), count)

    @property
    def total(self) -> int:
        return int(self.count.sum())

    def share_below(self, values: np.ndarray) -> np.ndarray:
        """The share of all values up to each of these, as if values lay evenly inside a bin."""
        # A bin without width is a step: interpolation needs it to have some.
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
    """One distribution, and perhaps another behind it.

    Attributes:
        area: path of this run's distribution.
        outline: path of the baseline's; empty without one.
        ticks: of the x axis.
        marks: positions and names of quantiles.
        logarithmic: whether the x axis is.
    """

    area: str
    outline: str
    ticks: tuple[Tick, ...]
    marks: tuple[Tick, ...]
    logarithmic: bool


def distribution_chart(now: Masses, baseline: Masses | None, marks: Sequence[tuple[str, float]]) -> DistributionChart:
    """Draw distributions that share both axes; each has the same area, however many values it has.

    Args:
        now: the distribution to draw as an area; it has values.
        baseline: the one to draw as an outline; one without values is left out.
        marks: (name, value) to mark on the axis, within the range of `now`; those first that matter most.
    """
    drawn = [masses for masses in (now, baseline) if masses is not None and masses.total]
    low, high = min(m.low[0] for m in drawn), max(m.high[-1] for m in drawn)
    logarithmic = low > 0 and high / low > _LOG_RATIO
    if high <= low:
        margin = abs(low) / 20 or 0.5
        low, high = low - margin, high + margin
    # Rice's rule, within what the eye tells apart.
    bins = int(np.clip(2 * now.total ** (1 / 3), _FEWEST_BINS, _MOST_BINS))
    edges = np.geomspace(low, high, bins + 1) if logarithmic else np.linspace(low, high, bins + 1)
    # The ends are rounded: what lies on them must not fall out.
    edges[0], edges[-1] = low, np.nextafter(high, np.inf)
    shares = [np.diff(masses.share_below(edges), prepend=0.0)[1:] for masses in drawn]
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
        ticks=tuple(Tick(round(position(value), 1), f"{value:g}") for value in values),
        marks=_without_overlaps(Tick(round(position(value), 1), name) for name, value in marks),
        logarithmic=logarithmic,
    )


@dataclass(frozen=True)
class Point:
    """One run of a course: position, a text for people, and how to draw it: `pass`, `warn`, `fail` or nothing."""

    x: float
    y: float
    label: str
    kind: str


@dataclass(frozen=True)
class CourseChart:
    """A number over several runs.

    Attributes:
        line: path through the points; it breaks where a run has no value.
        band: path around what lies between two further numbers; empty without them.
        points: of the runs that have a value.
        ticks: of the y axis.
    """

    line: str
    band: str
    points: tuple[Point, ...]
    ticks: tuple[Tick, ...]


def course_chart(
    values: Sequence[float | None],
    labels: Sequence[str],
    kinds: Sequence[str],
    low: Sequence[float | None] = (),
    high: Sequence[float | None] = (),
    least_span: Sequence[float] = (),
) -> CourseChart | None:
    """Draw a number over runs, evenly spaced in their order; None: no run has a value.

    Args:
        values: one per run; None: the run has none.
        labels: one per run, for the points.
        kinds: one per run, likewise.
        low: the band's lower edge, one per run, or nothing.
        high: the band's upper edge, likewise.
        least_span: numbers that the y axis must reach, so that a small change does not look like a large one.
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
    return CourseChart(
        line=line,
        band="M" + "L".join(f"{a} {b}" for a, b in outline) + "Z" if outline else "",
        points=tuple(
            Point(x(i), y(value), label, kind)
            for i, (value, label, kind) in enumerate(zip(values, labels, kinds, strict=True))
            if value is not None
        ),
        ticks=tuple(Tick(y(value), f"{value:g}") for value in _linear_ticks(bottom, top)),
    )


def _without_overlaps(marks: Iterable[Tick]) -> tuple[Tick, ...]:
    """The marks; one whose name would touch an earlier one's is left without a name."""
    placed: list[Tick] = []
    for mark in marks:
        free = all(abs(mark.position - other.position) > _NAME_WIDTH for other in placed if other.label)
        placed.append(mark if free else Tick(mark.position, ""))
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
    # Twelve digits: what is left of 0.1 + 0.2 is no part of a label.
    return [float(f"{number * step:.12g}") for number in numbers]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, at most six of them."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    step = max(1, math.ceil((last - first + 1) / 6))
    return [10.0**exponent for exponent in range(first, last + 1, step)]
