"""Judge a run's summary by rules: every rule's value, its limit, and whether it holds."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline.audit.judging.rule_kinds import COUNTING, OF_PAIRS, OF_RUN, Measured
from pipeline.audit.judging.rules import Rule
from pipeline.audit.runs.summaries import RunSummary, check_comparable
from pipeline.errors import UsageError, nearest
from transforms.summary.distribution import as_stored
from transforms.summary.scored_pairs import OTHER, ScoredPairs
from transforms.summary.summary import Summary

Outcome = Literal["fail", "warn", "skipped", "pass"]

# The most serious first.
OUTCOMES: tuple[Outcome, ...] = ("fail", "warn", "skipped", "pass")


@dataclass(frozen=True)
class Result:
    """What became of a rule.

    Attributes:
        rule: its kind.
        line: where it stands in its file; 0: it is one that always holds.
        what: what was measured, for people: `quantile 0.95 of lpips_vgg`.
        column: of the metrics, or empty.
        slice: of which pairs: `camera=left`; empty: of all.
        value: what was measured; None: there is no value, or an infinite one; see `reason`.
        limit: for people: `<= 0.25`.
        outcome: what became of it.
        reason: why it was skipped or has no value; else empty.
        pairs: on how many pairs it rests.
        examples: id, source and value of some pairs beyond a per-pair limit, the worst first.
    """

    rule: str
    line: int
    what: str
    column: str
    slice: str
    value: float | None
    limit: str
    outcome: Outcome
    reason: str = ""
    pairs: int = 0
    examples: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What became of a run.

    Attributes:
        run: its directory, or its summary file.
        rules: the rules' file.
        baseline: the baseline's directory or file; None: there was none.
        counts: the run's counts.
        results: of all rules, the most serious first.
    """

    run: str
    rules: str
    baseline: str | None
    counts: Mapping[str, int]
    results: tuple[Result, ...]

    @property
    def outcome(self) -> Outcome:
        """`fail` or `warn` if a rule says so; `warn` also if no rule could be judged; else `pass`."""
        outcomes = {result.outcome for result in self.results if result.line}
        if any(result.outcome == "fail" for result in self.results):
            return "fail"
        return "warn" if "warn" in outcomes or outcomes == {"skipped"} else "pass"

    def to_json(self) -> dict[str, Any]:
        """As plain values: the content of verdict.json."""
        return {
            "verdict": self.outcome,
            "run": self.run,
            "rules": self.rules,
            "baseline": self.baseline,
            "counts": dict(self.counts),
            "results": [asdict(result) for result in self.results],
        }


def judge(run: RunSummary, rules: Sequence[Rule], rules_path: str = "", baseline: RunSummary | None = None) -> Verdict:
    """Measure and judge all rules.

    Raises:
        UsageError: a rule names an unknown column or needs slices where there are none; or the baseline is of other
            losses, weights or decoding, or has no scored pair.
    """
    if baseline:
        check_comparable(run, baseline)
        if not baseline.summary.scored:
            raise UsageError(f"the baseline {baseline.path} has no scored pair")
    for rule in rules:
        _check_applies(rule, run, rules_path)
    base = baseline.summary if baseline else None
    results = [_something_scored(run.summary)]
    results += [result for rule in rules for result in _results(rule, run.summary, base)]
    results.sort(key=lambda result: OUTCOMES.index(result.outcome))
    return Verdict(run.path, rules_path, baseline.path if baseline else None, run.summary.counts(), tuple(results))


def _check_applies(rule: Rule, run: RunSummary, rules_path: str) -> None:
    columns = run.summary.columns
    if rule.column and rule.column not in columns:
        raise UsageError(
            f"{rules_path}:{rule.line}: {run.path} has no column {rule.column!r}.{nearest(rule.column, columns)} "
            f"Its columns: {', '.join(columns)}"
        )
    if rule.each_slice and not run.summary.slices:
        raise UsageError(f"{rules_path}:{rule.line}: each_slice needs slices; {run.path} was run without --slice_by")


def _something_scored(summary: Summary) -> Result:
    outcome: Outcome = "pass" if summary.scored else "fail"
    return Result("pairs", 0, "scored pairs", "", "", summary.scored, ">= 1", outcome, pairs=summary.scored)


def _results(rule: Rule, ours: Summary, baseline: Summary | None) -> Iterator[Result]:
    if rule.rule in OF_RUN:
        yield _result(rule, "", OF_RUN[rule.rule](ours), None)
        return
    for label, pairs, base in _scopes(rule, ours, baseline):
        yield _result(rule, label, OF_PAIRS[rule.rule](rule, pairs, base), pairs)


def _scopes(
    rule: Rule, ours: Summary, baseline: Summary | None
) -> Iterator[tuple[str, ScoredPairs, ScoredPairs | None]]:
    """All pairs, and on request each slice, also one that only the baseline has."""
    yield "", ours.pairs, baseline.pairs if baseline else None
    if not (rule.each_slice and ours.slices):
        return
    slices = ours.slices
    base = baseline.slices if baseline and baseline.slices and baseline.slices.by == slices.by else None
    values = {*slices.values, *(base.values if base else ())}
    for value in sorted(values, key=lambda value: (value is not None, value or "")):
        label = f"{slices.by}={'(null)' if value is None else value}"
        yield label, slices.values.get(value, ScoredPairs()), base.values.get(value, ScoredPairs()) if base else None
    if slices.other.count:
        yield f"{slices.by}: {OTHER}", slices.other, base.other if base else None


def _result(rule: Rule, label: str, measured: Measured, pairs: ScoredPairs | None) -> Result:
    outcome, reason = _outcome(rule, measured, whole=not label)
    return Result(
        rule=rule.rule,
        line=rule.line,
        what=_what(rule),
        column=rule.column,
        slice=label,
        value=measured.value if math.isfinite(measured.value) else None,
        limit=_limit(rule),
        outcome=outcome,
        reason=reason,
        pairs=measured.pairs,
        examples=_beyond(rule, pairs) if pairs and rule.rule == "pair_limit" and outcome in ("fail", "warn") else (),
    )


def _outcome(rule: Rule, measured: Measured, whole: bool) -> tuple[Outcome, str]:
    if measured.reason:
        return "skipped", measured.reason
    if rule.rule not in COUNTING and not measured.pairs:
        # Of a slice that may be; but a whole run in which a loss has no value at all must not pass.
        return rule.level if whole else "skipped", "no pair has a value"
    if rule.rule not in COUNTING and measured.pairs < rule.least_pairs:
        return "skipped", f"{measured.pairs} pairs, fewer than {rule.least_pairs}"
    least, most = _bounds(rule)
    if least <= measured.value <= most:
        return "pass", ""
    return rule.level, "" if math.isfinite(measured.value) else "infinite: the baseline is a constant"


def _bounds(rule: Rule) -> tuple[float, float]:
    """Of the measured value, while `min` and `max` of a per-pair limit are of each pair."""
    return (-math.inf, rule.allowed) if rule.rule == "pair_limit" else (rule.min, rule.max)


def _what(rule: Rule) -> str:
    match rule.rule:
        case "quantile":
            return f"quantile {rule.quantile:g} of {rule.column}"
        case "drift":
            return f"drift of {rule.column}, {rule.distance}"
        case "pair_limit":
            return f"pairs with {rule.column} {' or '.join(_beyond_texts(rule))}"
        case "mean" | "nan_fraction":
            return f"{rule.rule} of {rule.column}"
        case _:
            return rule.rule


def _beyond_texts(rule: Rule) -> list[str]:
    texts = [f"< {rule.min:g}"] if rule.min > -math.inf else []
    return texts + ([f"> {rule.max:g}"] if rule.max < math.inf else [])


def _limit(rule: Rule) -> str:
    least, most = _bounds(rule)
    texts = [f">= {least:g}"] if least > -math.inf else []
    return ", ".join(texts + ([f"<= {most:g}"] if most < math.inf else []))


def _beyond(rule: Rule, pairs: ScoredPairs) -> tuple[dict[str, Any], ...]:
    distribution = pairs.columns[rule.column]
    higher = distribution.column.higher_is_better
    ends = ((distribution.worst, higher), (distribution.best, not higher))
    found: dict[str, dict[str, Any]] = {}
    for extremes, ascending in ends:
        for rank, source, text in extremes:
            value = rank if ascending else -rank
            if not as_stored(rule.min) <= value <= as_stored(rule.max):
                shown = value if math.isfinite(value) else None
                found.setdefault(source, {"id": json.loads(text)["id"], "source": source, "value": shown})
    return tuple(found.values())
