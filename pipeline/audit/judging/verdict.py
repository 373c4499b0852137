"""Judge a run's summary by rules: the value of each rule, its limit, and whether it holds."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.audit.judging.rule import Measured, Rule, Scope, limits
from pipeline.audit.runs.summaries import RunSummary, check_comparable
from pipeline.audit.runs.verdict_file import OUTCOMES, Outcome
from pipeline.errors import UsageError, nearest
from transforms.summary.scored_pairs import OTHER, ScoredPairs
from transforms.summary.summary import Summary


@dataclass(frozen=True)
class Result:
    """The result of one rule.

    Attributes:
        rule: its kind.
        line: where it stands in its file; 0 for the rule that always holds.
        what: the measured value, for people: `quantile 0.95 of lpips_vgg`.
        column: column of the metrics, or empty.
        slice: the judged pairs, such as `camera=left`; empty for all.
        value: the measured value; None if there is none, or an infinite one; see `reason`.
        limit: for people: `<= 0.25`.
        outcome: whether the rule holds.
        reason: why it was skipped or has no value; else empty.
        pairs: number of pairs that the value rests on.
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
    """The verdict on a run.

    Attributes:
        run: its directory, or its summary file.
        rules: the rules' file.
        baseline: the baseline's directory or file; None without one.
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
        """`fail` or `warn` if a rule says so; `warn` also if most rules were skipped; else `pass`."""
        if any(result.outcome == "fail" for result in self.results):
            return "fail"
        # A small slice alone is not worth a warning.
        whole = Counter(result.outcome for result in self.results if result.line and not result.slice)
        warned = any(result.outcome == "warn" for result in self.results)
        return "warn" if warned or 2 * whole["skipped"] > whole.total() else "pass"

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
        UsageError: a rule names an unknown column or needs slices that the run does not have; or the baseline has
            other losses, weights or decoding, or no scored pair.
    """
    if baseline:
        check_comparable(run, baseline)
        if not baseline.summary.scored:
            raise UsageError(f"the baseline {baseline.path} has no scored pair; give a run that has")
    for rule in rules:
        _check_applies(rule, run, rules_path)
    base = baseline.summary if baseline else None
    results = [_something_scored(run.summary)]
    results += [_result(rule, scope) for rule in rules for scope in _scopes(rule, run.summary, base)]
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


def _scopes(rule: Rule, ours: Summary, baseline: Summary | None) -> Iterator[Scope]:
    """All pairs and, on request, each slice, including those that only the baseline has."""
    yield Scope(ours, ours.pairs, baseline.pairs if baseline else None)
    if not (rule.each_slice and ours.slices):
        return
    slices = ours.slices
    base = baseline.slices if baseline and baseline.slices and baseline.slices.by == slices.by else None
    values = {*slices.values, *(base.values if base else ())}
    for value in sorted(values, key=lambda value: (value is not None, value or "")):
        label = f"{slices.by}={'(null)' if value is None else value}"
        then = base.values.get(value, ScoredPairs()) if base else None
        yield Scope(ours, slices.values.get(value, ScoredPairs()), then, label)
    if slices.other.count:
        yield Scope(ours, slices.other, base.other if base else None, f"{slices.by}: {OTHER}")


def _result(rule: Rule, scope: Scope) -> Result:
    measured = rule.measure(scope)
    outcome, reason = _outcome(rule, measured, whole=not scope.slice)
    least, most = rule.bounds
    return Result(
        rule=rule.kind,
        line=rule.line,
        what=rule.what,
        column=rule.column,
        slice=scope.slice,
        value=measured.value if math.isfinite(measured.value) else None,
        limit=", ".join(limits(least, ">=", most, "<=")),
        outcome=outcome,
        reason=reason,
        pairs=measured.pairs,
        examples=rule.examples(scope.pairs) if outcome in ("fail", "warn") else (),
    )


def _outcome(rule: Rule, measured: Measured, whole: bool) -> tuple[Outcome, str]:
    if measured.reason:
        return "skipped", measured.reason
    if rule.least_pairs and not measured.pairs:
        # A slice may have no values, but a whole run in which a loss has none must not pass.
        return rule.level if whole else "skipped", "no pair has a value"
    if measured.pairs < rule.least_pairs:
        return "skipped", f"fewer than {rule.least_pairs} pairs"
    least, most = rule.bounds
    if least <= measured.value <= most:
        return "pass", ""
    return rule.level, "" if math.isfinite(measured.value) else "infinite: the baseline is a constant"
