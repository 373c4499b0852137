"""The kinds of rules, one class each: the keys that a rules file gives, what is measured, and how to say it.

To add a kind, write a class, add it to `RULE_KINDS`, and run `make docs`, which writes rules.schema.json again.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

from pipeline.audit.judging.rule import (
    LEAST_PAIRS,
    Distance,
    EachSlice,
    Fraction,
    LeastPairs,
    Measured,
    Name,
    NonNegative,
    Number,
    Rule,
    Scope,
    limits,
)
from pipeline.audit.runs.drift import drift
from pipeline.console.numbers import as_given
from transforms.columns import Column
from transforms.row_keys import row_key
from transforms.summary.distribution import Distribution, as_stored
from transforms.summary.scored_pairs import ScoredPairs


@dataclass(frozen=True, kw_only=True)
class _Count(Rule):
    each_slice: EachSlice = False
    min: Number = -math.inf
    max: Number = math.inf


@dataclass(frozen=True, kw_only=True)
class _OfColumn(Rule):
    column: Name
    each_slice: EachSlice = False
    least_pairs: LeastPairs = LEAST_PAIRS

    def of(self, pairs: ScoredPairs) -> Distribution:
        """The column's values; a slice without pairs has no columns."""
        return pairs.columns.get(self.column) or Distribution(Column(self.column, "", "", "none"))


@dataclass(frozen=True, kw_only=True)
class FailureFraction(Rule):
    """Records that could not be scored, as a fraction of all records found."""

    kind = "failure_fraction"
    least_pairs: LeastPairs = LEAST_PAIRS
    max: Fraction

    def measure(self, scope: Scope) -> Measured:
        lost, listed = scope.run.failed + scope.run.unread, scope.run.listed
        return Measured(lost / listed if listed else math.nan, listed)


@dataclass(frozen=True, kw_only=True)
class FilesFailed(Rule):
    """Number of input files that could not be read to their end."""

    kind = "files_failed"
    max: NonNegative

    def measure(self, scope: Scope) -> Measured:
        return Measured(len(scope.run.failed_files), scope.run.listed)


@dataclass(frozen=True, kw_only=True)
class DuplicateIds(Rule):
    """Number of scored pairs whose id another pair has as well."""

    kind = "duplicate_ids"
    max: NonNegative

    def measure(self, scope: Scope) -> Measured:
        return Measured(scope.run.duplicate_ids, scope.run.listed)


@dataclass(frozen=True, kw_only=True)
class Pairs(_Count):
    """Number of scored pairs."""

    kind = "pairs"

    def measure(self, scope: Scope) -> Measured:
        return Measured(scope.pairs.count, scope.pairs.count)


@dataclass(frozen=True, kw_only=True)
class CountRatio(_Count):
    """Number of scored pairs, divided by the baseline's number."""

    kind = "count_ratio"

    def measure(self, scope: Scope) -> Measured:
        if scope.baseline is None:
            return _NO_BASELINE
        if not scope.baseline.count:
            return _NOT_IN_BASELINE
        return Measured(scope.pairs.count / scope.baseline.count, scope.pairs.count)


@dataclass(frozen=True, kw_only=True)
class Quantile(_OfColumn):
    """A quantile of a column's finite values."""

    kind = "quantile"
    quantile: Fraction
    min: Number = -math.inf
    max: Number = math.inf

    @property
    def what(self) -> str:
        return f"quantile {as_given(self.quantile)} of {self.column}"

    def measure(self, scope: Scope) -> Measured:
        values = self.of(scope.pairs)
        return Measured(values.quantile(self.quantile), values.finite, _if_infinite(values))


@dataclass(frozen=True, kw_only=True)
class Mean(_OfColumn):
    """The mean of a column's finite values."""

    kind = "mean"
    min: Number = -math.inf
    max: Number = math.inf

    def measure(self, scope: Scope) -> Measured:
        values = self.of(scope.pairs)
        return Measured(values.mean, values.finite, _if_infinite(values))


@dataclass(frozen=True, kw_only=True)
class NanFraction(_OfColumn):
    """Pairs whose value in a column is NaN, as a fraction of all scored pairs."""

    kind = "nan_fraction"
    max: Fraction

    def measure(self, scope: Scope) -> Measured:
        count = scope.pairs.count
        return Measured(self.of(scope.pairs).nan / count if count else math.nan, count)


@dataclass(frozen=True, kw_only=True)
class PairLimit(_OfColumn):
    """Pairs whose value lies below min or above max: at most the allowed fraction of the pairs with a value."""

    kind = "pair_limit"
    min: Number = -math.inf
    max: Number = math.inf
    allowed: Fraction = 0

    @property
    def what(self) -> str:
        return f"pairs with {self.column} {' or '.join(limits(self.min, '<', self.max, '>'))}"

    @property
    def bounds(self) -> tuple[float, float]:
        """Bounds of the fraction; `min` and `max` are those of each pair."""
        return -math.inf, self.allowed

    def measure(self, scope: Scope) -> Measured:
        values = self.of(scope.pairs)
        beyond = values.outside(self.min, self.max)
        return Measured(beyond / values.defined if values.defined else math.nan, values.defined)

    def examples(self, pairs: ScoredPairs) -> tuple[dict[str, Any], ...]:
        values = self.of(pairs)
        higher = values.column.higher_is_better
        found: dict[str, dict[str, Any]] = {}
        for extremes, ascending in ((values.worst, higher), (values.best, not higher)):
            for rank, source, text in extremes:
                value = rank if ascending else -rank
                if not as_stored(self.min) <= value <= as_stored(self.max):
                    shown = value if math.isfinite(value) else None
                    found.setdefault(source, {"id": row_key(json.loads(text)), "source": source, "value": shown})
        return tuple(found.values())


@dataclass(frozen=True, kw_only=True)
class DriftLimit(_OfColumn):
    """Distance of a column's distribution from the baseline's."""

    kind = "drift"
    distance: Distance
    max: NonNegative

    @property
    def what(self) -> str:
        return f"drift of {self.column}, {self.distance}"

    def measure(self, scope: Scope) -> Measured:
        if scope.baseline is None:
            return _NO_BASELINE
        now, then = self.of(scope.pairs), self.of(scope.baseline)
        if not then.defined:
            return _NOT_IN_BASELINE
        value: float = getattr(drift(now, then), self.distance)
        if self.distance == "wasserstein":
            return Measured(value, min(now.finite, then.finite), _if_infinite(now) or _if_infinite(then))
        return Measured(value, min(now.defined, then.defined))


RULE_KINDS: dict[str, type[Rule]] = {
    kind.kind: kind
    for kind in (
        *(FailureFraction, FilesFailed, DuplicateIds, Pairs, CountRatio),
        *(Quantile, Mean, NanFraction, PairLimit, DriftLimit),
    )
}


def _if_infinite(values: Distribution) -> str:
    return "all values are infinite" if values.defined and not values.finite else ""


_NO_BASELINE = Measured(math.nan, 0, "no baseline")
_NOT_IN_BASELINE = Measured(math.nan, 0, "not in the baseline")
