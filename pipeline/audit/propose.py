"""`pairloss audit propose RUN`: write a first rules file from a good run, for you to edit."""

import math
from collections.abc import Iterator, Sequence

from pipeline.audit.judging.rule import LEAST_PAIRS
from pipeline.audit.judging.rules import parse_rules
from pipeline.audit.runs.files import write_file
from pipeline.audit.runs.summaries import RunSummary, read_run
from pipeline.console.numbers import as_given, number
from pipeline.errors import UsageError
from pipeline.flags import Parser, path
from transforms.columns import Column
from transforms.summary.distribution import Distribution

# Changes from night to night that are not a defect.
_COUNT_MARGIN = 0.05
_MEDIAN_MARGIN = 0.5
_TAIL_ALLOWED = 0.01
_FAILURE_MARGIN = 2
# The rules must judge a run that is this much smaller.
_FEWEST_SHARE = 0.75

# Drift limits for many pairs. Two small samples of the same data, of n and m pairs, differ by noise in proportion to
# sqrt(1 / n + 1 / m). The KS factor is the 0.999 quantile of Kolmogorov's distribution: one false alarm in 1000 nights.
# The Wasserstein factor is larger because long tails disturb that distance more.
_DRIFT = {"ks": 0.1, "wasserstein": 0.2, "psi": 0.2}
_KS_NOISE, _WASSERSTEIN_NOISE, _PSI_NOISE = 1.95, 3.0, 25.0


def main(argv: Sequence[str]) -> int:
    """Write or print the rules; return the exit code."""
    parser = Parser(
        "pairloss audit propose",
        "Write a first rules file from a good run. Read it, and loosen the limits that are too tight.",
    )
    parser.add_argument("run", metavar="RUN", type=path, help="directory of a finished run, local, gs:// or s3://")
    parser.add_argument("--output", type=path, metavar="FILE", help="default: print the rules")
    given = parser.parse_args(argv)
    text = propose(read_run(given.run))
    if given.output:
        write_file(given.output, text.encode())
        print(f"{given.output}: {len(parse_rules(text, given.output))} rules")
    else:
        print(text, end="")
    return 0


def propose(run: RunSummary) -> str:
    """The rules, as YAML with comments.

    Raises:
        UsageError: the run has no scored pair.
    """
    if not run.summary.scored:
        raise UsageError(f"{run.path} has no scored pair to make rules from; give a run that has")
    return "\n".join(_lines(run)) + "\n"


def _lines(run: RunSummary) -> Iterator[str]:
    summary = run.summary
    lost = (summary.failed + summary.unread) / summary.listed
    failures = _outward(min(1.0, max(_FAILURE_MARGIN * lost, 0.001)), up=True)
    yield f"# Proposed from {' '.join(run.path.split())}: {summary.scored} scored pairs, {summary.failed} failed."
    yield "# Edit it: every limit is a guess from one good run. `level: warn` makes a rule warn instead of fail."
    yield "# A rule is skipped if it needs a baseline and none is given, or if there are fewer pairs than least_pairs,"
    yield f"# by default {LEAST_PAIRS}."
    yield "rules:"
    yield f"  # Twice the failures of this run ({number(lost)}), at least 1 in 1000."
    yield _rule("failure_fraction", max=failures, **_least_pairs(summary.listed))
    yield "  # No more unreadable files than in this run."
    yield _rule("files_failed", max=len(summary.failed_files))
    yield f"  # At most 5 % fewer pairs than the {summary.scored} of this run."
    yield _rule("pairs", min=math.floor(summary.scored * (1 - _COUNT_MARGIN)))
    yield "  # At most 5 % fewer pairs than the baseline."
    yield _rule("count_ratio", min=1 - _COUNT_MARGIN)
    for distribution in summary.columns.values():
        if distribution.finite:
            yield from _column_lines(distribution)


def _column_lines(distribution: Distribution) -> Iterator[str]:
    column, name = distribution.column, distribution.column.name
    lowest, highest, median = distribution.minimum, distribution.maximum, distribution.quantile(0.5)
    # If all pairs have the same value, rounding alone must not fail the gate.
    margin = _MEDIAN_MARGIN * distribution.deviation or 0.01 * abs(median)
    least = _least_pairs(distribution.finite)
    yield ""
    yield (
        f"  # {name}: median {number(median)}, deviation {number(distribution.deviation)}, "
        f"from {number(lowest)} to {number(highest)}"
    )
    yield _rule("nan_fraction", column=name, max=_outward(distribution.nan / distribution.pairs, up=True), **least)
    yield "  # Half a deviation beyond this run's median."
    yield _rule("quantile", column=name, quantile=0.5, **_limits(column, median, median, margin), **least)
    yield "  # 1 % of the pairs may lie beyond all pairs of this run."
    yield _rule("pair_limit", column=name, **_limits(column, lowest, highest, 0.0), allowed=_TAIL_ALLOWED, **least)
    yield "  # Distances from the baseline."
    variance = 1 / distribution.finite + 1 / (_FEWEST_SHARE * distribution.finite)
    noise = {"ks": _KS_NOISE * math.sqrt(variance), "wasserstein": _WASSERSTEIN_NOISE * math.sqrt(variance)}
    noise["psi"] = _PSI_NOISE * variance
    for distance, limit in _DRIFT.items():
        yield _rule(
            "drift", column=name, distance=distance, max=_outward(max(limit, noise[distance]), up=True), **least
        )


def _least_pairs(pairs: int) -> dict[str, int]:
    """The key that keeps a rule on for a run smaller than this one; empty if the default does."""
    fewest = max(1, math.floor(_FEWEST_SHARE * pairs))
    return {"least_pairs": fewest} if fewest < LEAST_PAIRS else {}


def _limits(column: Column, lowest: float, highest: float, margin: float) -> dict[str, float]:
    """Limits on the bad side, or on both sides if neither is better."""
    least, most = _outward(lowest - margin, up=False), _outward(highest + margin, up=True)
    limits = {"lower": {"max": most}, "higher": {"min": least}, "none": {"min": least, "max": most}}
    return limits[column.direction]


def _outward(value: float, up: bool) -> float:
    """The value rounded to three digits, which are easier to read, so that it stays within the limit itself."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
    rounded = (math.ceil if up else math.floor)(value / unit) * unit
    return float(f"{rounded:.3g}")


def _rule(rule: str, **keys: object) -> str:
    texts = (f"{key}: {as_given(value) if isinstance(value, float) else value}" for key, value in keys.items())
    return f"  - {{rule: {rule}, {', '.join(texts)}}}"
