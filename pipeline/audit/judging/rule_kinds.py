"""What the rules of a gate measure: one function per kind of rule."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.audit.judging.rules import Rule
from pipeline.audit.runs.drift import drift
from transforms.columns import Column
from transforms.summary.distribution import Distribution
from transforms.summary.scored_pairs import ScoredPairs
from transforms.summary.summary import Summary


@dataclass(frozen=True)
class Measured:
    """A measured value.

    Attributes:
        value: NaN where there is none.
        pairs: number of pairs it rests on; of the smaller run, where it compares two.
        reason: why it cannot be judged, or empty.
    """

    value: float
    pairs: int
    reason: str = ""


def _failure_fraction(summary: Summary) -> Measured:
    lost = summary.failed + summary.unread
    return Measured(lost / summary.listed if summary.listed else math.nan, summary.listed)


def _files_failed(summary: Summary) -> Measured:
    return Measured(len(summary.failed_files), summary.listed)


def _pairs(rule: Rule, ours: ScoredPairs, base: ScoredPairs | None) -> Measured:
    return Measured(ours.count, ours.count)


def _count_ratio(rule: Rule, ours: ScoredPairs, base: ScoredPairs | None) -> Measured:
    if base is None:
        return _NO_BASELINE
    if not base.count:
        return Measured(math.nan, ours.count, "not in the baseline")
    return Measured(ours.count / base.count, ours.count)


def _quantile(rule: Rule, ours: ScoredPairs, base: ScoredPairs | None) -> Measured:
    distribution = _column(ours, rule)
    return Measured(distribution.quantile(rule.quantile), distribution.finite, _if_infinite(distribution))


def _mean(rule: Rule, ours: ScoredPairs, base: ScoredPairs | None) -> Measured:
    distribution = _column(ours, rule)
    return Measured(distribution.mean, distribution.finite, _if_infinite(distribution))


def _nan_fraction(rule: Rule, ours: ScoredPairs, base: ScoredPairs | None) -> Measured:
    return Measured(_column(ours, rule).nan / ours.count if ours.count else math.nan, ours.count)


def _pair_limit(rule: Rule, ours: ScoredPairs, base: ScoredPairs | None) -> Measured:
    distribution = _column(ours, rule)
    beyond = distribution.outside(rule.min, rule.max)
    return Measured(beyond / distribution.defined if distribution.defined else math.nan, distribution.defined)


def _drift(rule: Rule, ours: ScoredPairs, base: ScoredPairs | None) -> Measured:
    if base is None:
        return _NO_BASELINE
    now, then = _column(ours, rule), _column(base, rule)
    if not then.defined:
        return Measured(math.nan, 0, "not in the baseline")
    value: float = getattr(drift(now, then), rule.distance)
    if rule.distance == "wasserstein":
        return Measured(value, min(now.finite, then.finite), _if_infinite(now) or _if_infinite(then))
    return Measured(value, min(now.defined, then.defined))


def _column(pairs: ScoredPairs, rule: Rule) -> Distribution:
    """A slice without pairs has no columns either."""
    return pairs.columns.get(rule.column) or Distribution(Column(rule.column, "", "", "none"))


def _if_infinite(distribution: Distribution) -> str:
    return "all values are infinite" if distribution.defined and not distribution.finite else ""


_NO_BASELINE = Measured(math.nan, 0, "no baseline")

# Of a whole run: records that failed belong to no slice, for what they hold may be unreadable.
OF_RUN: dict[str, Callable[[Summary], Measured]] = {
    "failure_fraction": _failure_fraction,
    "files_failed": _files_failed,
}
# Of any set of scored pairs, and the same set of the baseline's.
OF_PAIRS: dict[str, Callable[[Rule, ScoredPairs, ScoredPairs | None], Measured]] = {
    "pairs": _pairs,
    "count_ratio": _count_ratio,
    "quantile": _quantile,
    "mean": _mean,
    "nan_fraction": _nan_fraction,
    "pair_limit": _pair_limit,
    "drift": _drift,
}
# What can be judged of any number of pairs.
COUNTING = ("files_failed", "pairs", "count_ratio")
