"""The content of the pages: plain values for the templates, without any HTML."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from operator import itemgetter
from typing import Any

from pipeline.audit.pages.charts import Bins, DistributionChart, distribution_chart
from pipeline.audit.pages.gallery import Gallery
from pipeline.audit.pages.render import anchor
from pipeline.audit.pages.thumbnails import Thumbnail
from pipeline.audit.runs.drift import Drift, drift
from pipeline.audit.runs.statistics import relative_change, share, statistics
from pipeline.failure_reasons import FAILURE_REASONS
from transforms.columns import Column
from transforms.losses.catalog import LOSSES
from transforms.row_keys import row_key
from transforms.summary.distribution import Distribution
from transforms.summary.scored_pairs import OTHER, ScoredPairs, Slices
from transforms.summary.summary import Summary

DIRECTIONS = {"lower": "lower is better", "higher": "higher is better", "none": "no better or worse"}
_MARKED = ("median", "p5", "p95")


@dataclass(frozen=True)
class LossView:
    """One column of the metrics.

    Attributes:
        column: its name and what it means.
        count: number of finite values.
        apart: (name, number) of values outside the distribution: `not defined`, `NaN`, `+inf`, `-inf`.
        numbers: quantiles, mean and extremes by name; None without values.
        count_before: number of finite values of the baseline; 0 without one.
        before: `numbers` of the baseline; None without one.
        changes: relative change of each number since the baseline; None if unknown.
        drift: from the baseline; None without one.
        chart: None without values.
    """

    column: Column
    count: int
    apart: tuple[tuple[str, int], ...]
    numbers: Mapping[str, float | None]
    count_before: int
    before: Mapping[str, float | None] | None
    changes: Mapping[str, float | None]
    drift: Drift | None
    chart: DistributionChart | None

    @property
    def direction(self) -> str:
        """Which way is better, for people."""
        return DIRECTIONS[self.column.direction]

    @property
    def worst_first(self) -> str:
        """The order in which the worst pair comes first."""
        return "ascending" if self.column.higher_is_better else "descending"

    @property
    def bad_tail(self) -> str:
        """The quantile that the worst 5 % of the pairs lie beyond."""
        return "p5" if self.column.higher_is_better else "p95"

    def tone(self, name: str) -> str:
        """`good` or `bad`, by the change of a number; empty if it changed by less than a bin, or is neither."""
        change = self.changes[name]
        if change is None or abs(change) < 0.01 or self.column.direction == "none":
            return ""
        return "good" if (change > 0) == self.column.higher_is_better else "bad"


def loss_view(distribution: Distribution, before: Distribution | None) -> LossView:
    """The view of one column, compared with the same column of the baseline if there is one."""
    numbers = statistics(distribution)
    old = statistics(before) if before else None
    quantiles = [(key, value) for key in _MARKED if (value := numbers[key]) is not None]
    background = Bins.of(before) if before and before.finite else None
    return LossView(
        column=distribution.column,
        count=distribution.finite,
        apart=_apart(distribution),
        numbers=numbers,
        count_before=before.finite if before else 0,
        before=old,
        changes={key: relative_change(value, old[key] if old else None) for key, value in numbers.items()},
        drift=drift(distribution, before) if before else None,
        chart=distribution_chart(Bins.of(distribution), background, quantiles) if distribution.finite else None,
    )


def _apart(distribution: Distribution) -> tuple[tuple[str, int], ...]:
    numbers = {
        "not defined": distribution.null,
        "NaN": distribution.nan,
        "+inf": distribution.positive_infinite,
        "-inf": distribution.negative_infinite,
    }
    return tuple((name, number) for name, number in numbers.items() if number)


@dataclass(frozen=True)
class FailureView:
    """A reason for failures.

    Attributes:
        reason: its code.
        meaning: for people.
        count: number of pairs.
        share: share of all pairs read.
        before: the same share in the baseline; None without one.
        examples: (id, source, message) of some pairs.
    """

    reason: str
    meaning: str
    count: int
    share: float
    before: float | None
    examples: tuple[tuple[str, str, str], ...]


def failure_views(summary: Summary, before: Summary | None) -> list[FailureView]:
    """Every reason of either summary, the most frequent first."""
    reasons = summary.failures | (before.failures if before else {})
    views = [
        FailureView(
            reason=reason,
            meaning=FAILURE_REASONS.get(reason, ""),
            count=summary.failures[reason],
            share=share(summary.failures[reason], summary.read) or 0.0,
            before=share(before.failures[reason], before.read) if before else None,
            examples=tuple((id, source, message) for source, id, message in summary.examples.get(reason, ())),
        )
        for reason in reasons
    ]
    return sorted(views, key=lambda view: (-view.count, view.reason))


@dataclass(frozen=True)
class SliceView:
    """The pairs with one value of the field by which a run is sliced.

    Attributes:
        name: the value.
        count: number of pairs.
        medians: per loss.
        changes: per loss, relative to the median of all pairs.
    """

    name: str
    count: int
    medians: Mapping[str, float | None]
    changes: Mapping[str, float | None]


def slice_views(slices: Slices, whole: ScoredPairs) -> list[SliceView]:
    """Every slice, the largest first. The pairs of all further slices come last."""
    named = [("(none)" if value is None else value, pairs) for value, pairs in slices.values.items()]
    named.sort(key=lambda entry: (-entry[1].count, entry[0]))
    if slices.other.count:
        named.append((OTHER, slices.other))
    overall = _medians(whole)
    views = []
    for name, pairs in named:
        medians = dict.fromkeys(overall) | _medians(pairs)
        changes = {loss: relative_change(median, overall[loss]) for loss, median in medians.items()}
        views.append(SliceView(name, pairs.count, medians, changes))
    return views


def _medians(pairs: ScoredPairs) -> dict[str, float | None]:
    return {name: statistics(distribution)["median"] for name, distribution in pairs.columns.items()}


@dataclass(frozen=True)
class PairView:
    """A row of a table of pairs.

    Attributes:
        anchor: element id to link to.
        id: the pair's id.
        source: the pair's source.
        size: `WxH` in pixels.
        values: per loss.
        kept: (name, value) of the kept fields.
        notes: how its images were converted.
        ranks: its place, from 1, per loss of which it is among the worst.
        pictures: empty if there are none.
        problem: why it has none; empty if they were left out.
    """

    anchor: str
    id: str
    source: str
    size: str
    values: Mapping[str, float | None]
    kept: tuple[tuple[str, Any], ...]
    notes: tuple[str, ...]
    ranks: Mapping[str, int]
    pictures: tuple[Thumbnail, ...] = ()
    problem: str = ""


def worst_rows(columns: Mapping[str, Distribution]) -> dict[str, dict[str, Any]]:
    """The rows of the worst pairs by source: first the worst of every loss, then the second worst, and so on."""
    by_loss = [[json.loads(text) for _, _, text in distribution.worst] for distribution in columns.values()]
    return {row["source"]: row for rank in zip_longest(*by_loss) for row in rank if row is not None}


def worst_in(columns: Mapping[str, Distribution]) -> dict[str, str]:
    """By source of a pair, the loss in which its rank is worst, of those that can be shown as maps."""
    found: dict[str, tuple[int, str]] = {}
    for distribution in columns.values():
        loss = distribution.column.loss
        if distribution.column.when == "before" and loss in LOSSES and LOSSES[loss].map:
            for rank, (_, source, _) in enumerate(distribution.worst):
                found[source] = min(found.get(source, (rank, loss)), (rank, loss), key=itemgetter(0))
    return {source: loss for source, (_, loss) in found.items()}


def pair_views(
    rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Distribution], kept: Sequence[str], gallery: Gallery
) -> list[PairView]:
    """The rows of a table of pairs, in the order given."""
    ranks = {
        name: {source: rank for rank, (_, source, _) in enumerate(distribution.worst, start=1)}
        for name, distribution in columns.items()
    }
    return [
        PairView(
            anchor=anchor(row["source"]),
            id=row_key(row),
            source=row["source"],
            size=f"{row['width']}×{row['height']}",  # noqa: RUF001 (a sign between numbers)
            values={name: row.get(name) for name in columns},
            kept=tuple((name, row[name]) for name in kept if name in row),
            notes=tuple(row["notes"]),
            ranks={name: found[row["source"]] for name, found in ranks.items() if row["source"] in found},
            pictures=gallery.pictures.get(row["source"], ()),
            problem=gallery.problems.get(row["source"], ""),
        )
        for row in rows
    ]
