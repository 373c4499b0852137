"""Verdicts: each rule's value and outcome, slices, and what must never pass."""

import math
from dataclasses import replace

import numpy as np
import pytest
from support.audited import run_of, summarized
from support.scored import INF, NAN

from pipeline.audit.judging.rule import Rule
from pipeline.audit.judging.rule_kinds import RULE_KINDS, PairLimit
from pipeline.audit.judging.verdict import Verdict, judge
from pipeline.errors import UsageError

VALUES = [float(n) for n in range(1, 101)]
RUN = summarized({"mae": VALUES, "ssim": [1 - n / 200 for n in range(100)]}, failed=25)
BASELINE = run_of(summarized({"mae": VALUES[:80], "ssim": [1.0] * 80}))


def rule_of(kind: str, line: int = 0, **keys) -> Rule:
    return RULE_KINDS[kind](line=line, **keys)


def judged(summary, *rules: Rule, baseline=None) -> Verdict:
    return judge(run_of(summary), rules, "rules.yaml", baseline)


def only(verdict: Verdict):
    """The one result of the one rule."""
    (result,) = (result for result in verdict.results if result.line)
    return result


@pytest.mark.parametrize(
    ("rule", "value", "limit"),
    [
        (rule_of("failure_fraction", max=0.1), 0.2, "<= 0.1"),
        (rule_of("pairs", min=101), 100, ">= 101"),
        (rule_of("pairs", max=99), 100, "<= 99"),
        (rule_of("count_ratio", min=0.9, max=1.1), 1.25, ">= 0.9, <= 1.1"),
        (rule_of("quantile", column="mae", quantile=0.95, max=90), 95, "<= 90"),
        (rule_of("quantile", column="ssim", quantile=0.5, min=0.8), 0.75, ">= 0.8"),
        (rule_of("mean", column="mae", max=50), 50.5, "<= 50"),
        (rule_of("pair_limit", column="mae", max=89.9, allowed=0.1), 0.11, "<= 0.1"),
        (rule_of("pair_limit", column="ssim", min=0.6025), 0.20, "<= 0"),
        (rule_of("drift", column="mae", distance="ks", max=0.1), 0.2, "<= 0.1"),
        (rule_of("drift", column="mae", distance="wasserstein", max=0.1), 10 / math.sqrt(6399 / 12), "<= 0.1"),
        (rule_of("drift", column="mae", distance="psi", max=0.1), 1.5, "<= 0.1"),
    ],
    ids=lambda rule: f"{rule.kind} {rule.column}" if isinstance(rule, Rule) else "",
)
@pytest.mark.parametrize("level", ["fail", "warn"])
def test_violations(rule, value, limit, level):
    rule = replace(rule, line=7, level=level)
    verdict = judged(RUN, rule, baseline=BASELINE)
    result = only(verdict)
    assert (result.outcome, verdict.outcome, result.limit, result.line) == (level, level, limit, 7)
    assert result.value == pytest.approx(value, rel=0.3 if "psi" in rule.what else 0.02)
    allowed = {"allowed": 1.0} if isinstance(rule, PairLimit) else {}
    least, most = -INF if rule.min == -INF else -1e9, INF if rule.max == INF else 1e9
    relaxed = replace(rule, min=least, max=most, **allowed)
    verdict = judged(RUN, relaxed, baseline=BASELINE)
    assert (only(verdict).outcome, verdict.outcome) == ("pass", "pass")


@pytest.mark.parametrize(("count", "outcome"), [(29, "skipped"), (30, "fail"), (100, "fail")])
def test_few_pairs_are_not_judged_but_reported(count, outcome):
    result = only(judged(summarized({"mae": VALUES[:count]}), rule_of("mean", 1, column="mae", max=0.5)))
    assert (result.outcome, result.value, result.pairs) == (outcome, (count + 1) / 2, count)
    assert ("fewer than 30" in result.reason) == (outcome == "skipped")


@pytest.mark.parametrize(
    "rule",
    [rule_of("count_ratio", 1, min=1), rule_of("drift", 1, column="mae", distance="ks", max=0)],
    ids=["count", "drift"],
)
def test_without_a_baseline(rule):
    verdict = judged(RUN, rule)
    assert (only(verdict).outcome, only(verdict).reason, only(verdict).value) == ("skipped", "no baseline", None)
    assert verdict.outcome == "warn", "nothing was judged"
    assert judged(RUN, rule, rule_of("pairs", 2, min=1)).outcome == "pass", "half of the rules were judged"
    assert judged(RUN, rule, rule, rule_of("pairs", 2, min=1)).outcome == "warn", "most rules were skipped"


class TestNothingPassesFor:
    def test_nothing_scored(self):
        verdict = judged(summarized({"mae": []}, failed=3), rule_of("files_failed", 1, max=0))
        assert verdict.outcome == "fail"
        assert (verdict.results[0].what, verdict.results[0].value, verdict.results[0].line) == ("scored pairs", 0, 0)

    @pytest.mark.parametrize("values", [[None] * 40, [NAN] * 40])
    @pytest.mark.parametrize("rule", ["mean", "pair_limit"])
    def test_a_loss_without_values(self, values, rule):
        verdict = judged(summarized({"mae": values}), rule_of(rule, 1, column="mae", max=1e9))
        assert (verdict.outcome, only(verdict).reason) == ("fail", "no pair has a value")

    def test_identical_pairs_have_no_finite_psnr_and_pass(self):
        mean = rule_of("mean", 1, column="psnr", min=20)
        verdict = judged(summarized({"psnr": [INF] * 40}), mean, rule_of("pair_limit", 2, column="psnr", min=20))
        assert [(r.what, r.outcome) for r in verdict.results if r.line] == [
            ("mean of psnr", "skipped"),
            ("pairs with psnr < 20", "pass"),
        ]

    def test_nan(self):
        verdict = judged(summarized({"mae": [*VALUES, NAN]}), rule_of("nan_fraction", 1, column="mae", max=0.005))
        assert (verdict.outcome, only(verdict).value) == ("fail", 1 / 101)


def test_examples_of_a_limit():
    values = [0.1] * 50
    values[7], values[31], values[40] = 0.9, INF, 0.5
    result = only(judged(summarized({"mae": values}), rule_of("pair_limit", 1, column="mae", max=0.4)))
    assert result.value == 3 / 50
    assert [(example["id"], example["value"]) for example in result.examples] == [
        ("id-31", None),
        ("id-7", pytest.approx(0.9)),
        ("id-40", 0.5),
    ]


def test_no_pair_beyond_is_told_exactly():
    """Values of the limit's own bin: the exact extreme decides."""
    rule = rule_of("pair_limit", 1, column="mae", max=1.001)
    assert only(judged(summarized({"mae": [1.001] * 40}), rule)).value == 0
    assert only(judged(summarized({"mae": [1.0009] * 40}), rule)).outcome == "pass"
    assert only(judged(summarized({"mae": [1.0009] * 39 + [1.002]}), rule)).outcome == "fail"


class TestSlices:
    KEPT = ["left", "right", None, "left"] * 40
    RIGHT_IS_BAD = [0.9 if kept == "right" else 0.1 for kept in KEPT]

    def judged(self, rule: Rule, baseline=None):
        verdict = judged(summarized({"mae": self.RIGHT_IS_BAD}, kept=self.KEPT), rule, baseline=baseline)
        return {result.slice: (result.outcome, result.pairs) for result in verdict.results if result.line}

    def test_shows_which_is_to_blame(self):
        assert self.judged(rule_of("mean", 1, column="mae", max=0.5, each_slice=True)) == {
            "": ("pass", 160),
            "kept=(null)": ("pass", 40),
            "kept=left": ("pass", 80),
            "kept=right": ("fail", 40),
        }
        assert self.judged(rule_of("mean", 1, column="mae", max=0.5)) == {"": ("pass", 160)}

    def test_against_the_slices_of_the_baseline(self):
        kept = ["left", "right", "up", "left"] * 40
        baseline = run_of(summarized({"mae": [0.1] * 160}, kept=kept))
        assert self.judged(rule_of("drift", 1, column="mae", distance="ks", max=0.5, each_slice=True), baseline) == {
            "": ("pass", 160),
            "kept=(null)": ("skipped", 0),
            "kept=left": ("pass", 80),
            "kept=right": ("fail", 40),
            "kept=up": ("skipped", 0),
        }

    def test_one_that_has_gone_is_missed(self):
        baseline = run_of(summarized({"mae": [0.1] * 160}, kept=["left", "right", "up", None] * 40))
        found = self.judged(rule_of("count_ratio", 1, min=0.5, each_slice=True), baseline)
        assert found["kept=up"] == ("fail", 0)
        assert found["kept=left"] == ("pass", 80)

    def test_small_ones_alone_do_not_warn(self):
        summary = summarized({"mae": [0.1] * 60}, kept=[f"camera {n % 6}" for n in range(60)])
        assert judged(summary, rule_of("mean", 1, column="mae", max=0.5, each_slice=True)).outcome == "pass"

    def test_need_slices(self):
        with pytest.raises(UsageError, match=r"rules.yaml:4: each_slice needs slices; run was run without --slice_by"):
            judged(RUN, rule_of("pairs", 4, min=1, each_slice=True))

    def test_baseline_without_slices(self):
        baseline = run_of(summarized({"mae": [0.1] * 160}))
        rule = rule_of("drift", 1, column="mae", distance="ks", max=0.5, each_slice=True)
        assert self.judged(rule, baseline)["kept=left"] == ("skipped", 0)


@pytest.mark.parametrize(
    ("rule", "baseline", "message"),
    [
        (rule_of("mean", 9, column="mea", max=1), None, "rules.yaml:9: run has no column 'mea'. Did you mean 'mae'?"),
        (rule_of("pairs", 1, min=1), run_of(RUN, "old", weights={"vgg16_lpips": "x"}), "their weights differ"),
        (rule_of("pairs", 1, min=1), run_of(summarized({"mae": []}), "old"), "the baseline old has no scored pair"),
    ],
    ids=["column", "weights", "empty baseline"],
)
def test_what_does_not_fit(rule, baseline, message):
    with pytest.raises(UsageError) as caught:
        judged(RUN, rule, baseline=baseline)
    assert message in str(caught.value)


def test_drift_from_a_constant():
    """Infinitely many deviations: no number of JSON."""
    baseline = run_of(summarized({"mae": [0.5] * 40}))
    rule = rule_of("drift", 1, column="mae", distance="wasserstein", max=10)
    result = only(judged(summarized({"mae": np.linspace(0, 1, 40).tolist()}), rule, baseline=baseline))
    assert (result.outcome, result.value, result.reason) == ("fail", None, "infinite: the baseline is a constant")


def test_the_most_serious_come_first():
    rules = [rule_of("pairs", 1, min=1), rule_of("pairs", 2, max=1, level="warn"), rule_of("count_ratio", 3, min=1), rule_of("pairs", 4, max=1)]  # fmt: skip # noqa: E501
    verdict = judged(RUN, *rules)
    assert [result.outcome for result in verdict.results] == ["fail", "warn", "skipped", "pass", "pass"]
    assert [result.line for result in verdict.results] == [4, 2, 3, 0, 1]
