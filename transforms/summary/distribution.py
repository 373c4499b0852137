"""The distribution of one column of the metrics, mergeable and exact where it can be: histogram, sums, extreme pairs.

Merging equals taking all values at once, to the last digit, in any order and grouping, and also after a round trip
through JSON: counts and histograms add up, sums are exact integers, and ties between pairs are broken by their source
and then by their row.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa

from transforms.columns import Column
from transforms.summary.extreme_pairs import Extreme, extremes, extremes_of_rows, first_of, rows_of

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
# Each histogram bin is 1 % wide, so that its geometric middle is within 0.5 % of every value in it.
_BIN_GROWTH = math.log(1.01)

# Every float32 is a multiple of 2**-149, and its square one of 2**-298: sums in these units are integers.
_UNIT_BITS = 149


@dataclass
class Distribution:
    """The values of one column.

    Attributes:
        column: what the values mean.
        null: pairs for which the column is not defined.
        nan: values that are not a number.
        positive_infinite: values that are +inf.
        negative_infinite: values that are -inf.
        zero: values that are 0.
        positive: number of positive finite values per bin; bin i holds 1.01**i <= x < 1.01**(i + 1).
        negative: the same of -x, for negative finite values.
        minimum: of the finite values.
        maximum: of the finite values.
        total: exact sum of the finite values, in units of 2**-149.
        squares: exact sum of their squares, in units of 2**-298.
        worst: up to `EXTREME_PAIRS` pairs, worst first.
        best: up to `EXTREME_PAIRS` pairs, best first.
    """

    column: Column
    null: int = 0
    nan: int = 0
    positive_infinite: int = 0
    negative_infinite: int = 0
    zero: int = 0
    positive: Counter[int] = field(default_factory=Counter)
    negative: Counter[int] = field(default_factory=Counter)
    minimum: float = math.inf
    maximum: float = -math.inf
    total: int = 0
    squares: int = 0
    worst: tuple[Extreme, ...] = ()
    best: tuple[Extreme, ...] = ()

    @property
    def finite(self) -> int:
        """Number of finite values."""
        return self.zero + self.positive.total() + self.negative.total()

    @property
    def defined(self) -> int:
        """Number of finite and infinite values: all pairs except those with NaN or null."""
        return self.finite + self.positive_infinite + self.negative_infinite

    @property
    def pairs(self) -> int:
        """Number of pairs, whatever their value."""
        return self.defined + self.nan + self.null

    @property
    def mean(self) -> float:
        """Mean of the finite values; NaN if there are none."""
        # Python rounds the quotient of two integers only once.
        return self.total / (self.finite << _UNIT_BITS) if self.finite else math.nan

    @property
    def variance(self) -> float:
        """Population variance of the finite values; NaN if there are none."""
        count = self.finite
        return (count * self.squares - self.total**2) / (count**2 << 2 * _UNIT_BITS) if count else math.nan

    @property
    def deviation(self) -> float:
        """Standard deviation of the finite values; NaN if there are none."""
        return math.sqrt(self.variance)

    def merge(self, other: "Distribution") -> None:
        """Add the other's values to this distribution."""
        self.null += other.null
        self.nan += other.nan
        self.positive_infinite += other.positive_infinite
        self.negative_infinite += other.negative_infinite
        self.zero += other.zero
        self.positive.update(other.positive)
        self.negative.update(other.negative)
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        self.total += other.total
        self.squares += other.squares
        self.worst = first_of(self.worst, other.worst)
        self.best = first_of(self.best, other.best)

    def quantile(self, fraction: float) -> float:
        """The smallest value that at least this fraction of the finite values do not exceed, to 0.5 %."""
        # Take the fraction as it is written: 0.07 of 100 values are 7, but the nearest binary number would give 8.
        rank = max(1, math.ceil(Fraction(str(fraction)) * self.finite))
        for value, number in self.ascending():
            rank -= number
            if rank <= 0:
                return min(max(value, self.minimum), self.maximum)
        return math.nan

    def outside(self, least: float = -math.inf, most: float = math.inf) -> int:
        """Number of values below `least` or above `most`, infinite ones included, to 0.5 % of these limits.

        The result is 0 exactly if no value lies outside. The limits are rounded to float32 as the values were, so a
        limit of 0.1 admits the 0.1 of a float32, which is slightly larger.
        """
        least, most = as_stored(least), as_stored(most)
        finite = sum(number for value, number in self.ascending() if not least <= value <= most)
        # Every value in the limit's own bin counts as the bin's middle. The exact extremes correct a wrong 0.
        finite = max(finite, self.finite and int(self.minimum < least) + int(self.maximum > most))
        if self.finite and least <= self.minimum and self.maximum <= most:
            finite = 0
        infinite = (least > -math.inf) * self.negative_infinite + (most < math.inf) * self.positive_infinite
        return finite + infinite

    def ascending(self) -> Iterator[tuple[float, int]]:
        """(middle of the bin, number of values in it) of the finite values, smallest first."""
        for index in sorted(self.negative, reverse=True):
            yield -_middle(index), self.negative[index]
        if self.zero:
            yield 0.0, self.zero
        for index in sorted(self.positive):
            yield _middle(index), self.positive[index]

    def to_json(self) -> dict[str, Any]:
        """As plain values. `count` and the statistics are of the finite values."""
        finite = self.finite
        return {
            "count": finite,
            "null": self.null,
            "nan": self.nan,
            "infinite": self.positive_infinite + self.negative_infinite,
            "negative_infinite": self.negative_infinite,
            "zero": self.zero,
            "min": self.minimum if finite else None,
            "max": self.maximum if finite else None,
            "mean": self.mean if finite else None,
            "variance": self.variance if finite else None,
            "quantiles": {f"{q:g}": self.quantile(q) for q in QUANTILES} if finite else {},
            "worst": rows_of(self.worst),
            "best": rows_of(self.best),
            "sum": str(Fraction(self.total, 1 << _UNIT_BITS)),
            "sum_of_squares": str(Fraction(self.squares, 1 << 2 * _UNIT_BITS)),
            "histogram": {"negative": _bins_to_json(self.negative), "positive": _bins_to_json(self.positive)},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], column: Column) -> "Distribution":
        """Read back the column's distribution that `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: the data is not of that form.
        """
        histogram = data["histogram"]
        negative_infinite = data["negative_infinite"]
        infinite = data["infinite"] - negative_infinite, negative_infinite
        bad, good = infinite[::-1] if column.higher_is_better else infinite
        result = cls(
            column,
            null=data["null"],
            nan=data["nan"],
            positive_infinite=infinite[0],
            negative_infinite=negative_infinite,
            zero=data["zero"],
            positive=_bins_from_json(histogram["positive"]),
            negative=_bins_from_json(histogram["negative"]),
            minimum=math.inf if data["min"] is None else data["min"],
            maximum=-math.inf if data["max"] is None else data["max"],
            total=_units(data["sum"], _UNIT_BITS),
            squares=_units(data["sum_of_squares"], 2 * _UNIT_BITS),
            worst=extremes_of_rows(data["worst"], column.name, bad, largest_first=not column.higher_is_better),
            best=extremes_of_rows(data["best"], column.name, good, largest_first=column.higher_is_better),
        )
        if result.finite != data["count"]:
            raise ValueError(f"the histogram of {column.name} holds {result.finite} values, not {data['count']}")
        return result


def distributions(metrics: pa.Table, columns: Iterable[Column]) -> dict[str, Distribution]:
    """The distribution of each of these columns of a table of metrics."""
    # Adding 0 turns -0 into 0, so that the minimum of two equal values does not depend on their order.
    values = {column: metrics[column.name].to_numpy().astype(np.float64) + 0.0 for column in columns}
    ends = extremes(metrics, {column.name: numbers for column, numbers in values.items()})
    found = {}
    for column, numbers in values.items():
        smallest, largest = ends[column.name]
        worst, best = (smallest, largest) if column.higher_is_better else (largest, smallest)
        null = metrics[column.name].is_null().to_numpy()
        found[column.name] = _distribution(column, numbers, null, worst, best)
    return found


def as_stored(limit: float) -> float:
    """The nearest float32, the type in which all values are stored."""
    with np.errstate(over="ignore"):
        return float(np.float32(limit))


def _distribution(
    column: Column, values: np.ndarray, null: np.ndarray, worst: tuple[Extreme, ...], best: tuple[Extreme, ...]
) -> Distribution:
    finite = values[np.isfinite(values)]
    result = Distribution(
        column,
        null=int(null.sum()),
        nan=int(np.isnan(values[~null]).sum()),
        positive_infinite=int(np.isposinf(values).sum()),
        negative_infinite=int(np.isneginf(values).sum()),
        zero=int((finite == 0).sum()),
        positive=_bins(finite[finite > 0]),
        negative=_bins(-finite[finite < 0]),
        total=_exact_sum(finite, _UNIT_BITS),
        # The squares are exact, too: 24 bits squared are 48, and the exponents stay within float64.
        squares=_exact_sum(finite**2, 2 * _UNIT_BITS),
        worst=worst,
        best=best,
    )
    if len(finite):
        result.minimum, result.maximum = float(finite.min()), float(finite.max())
    return result


def _bins(positive: np.ndarray) -> Counter[int]:
    indices, numbers = np.unique(np.floor(np.log(positive) / _BIN_GROWTH).astype(int), return_counts=True)
    return Counter(dict(zip(indices.tolist(), numbers.tolist(), strict=True)))


def _middle(index: int) -> float:
    return math.exp((index + 0.5) * _BIN_GROWTH)


def _bins_to_json(bins: Counter[int]) -> dict[str, list[int]]:
    indices = sorted(bins)
    return {"bins": indices, "counts": [bins[index] for index in indices]}


def _bins_from_json(data: Mapping[str, list[int]]) -> Counter[int]:
    return Counter(dict(zip(data["bins"], data["counts"], strict=True)))


def _exact_sum(values: np.ndarray, unit_bits: int) -> int:
    """The sum without rounding, in units of 2**-unit_bits: what `fsum` rounds off is summed again."""
    total, left = 0, values.tolist()
    while part := math.fsum(left):
        numerator, denominator = part.as_integer_ratio()
        total += (numerator << unit_bits) // denominator
        left.append(-part)
    return total


def _units(text: str, unit_bits: int) -> int:
    units = Fraction(text) * (1 << unit_bits)
    if units.denominator != 1:
        raise ValueError(f"{text} cannot be a sum of float32 values")
    return units.numerator
