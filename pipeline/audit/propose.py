"""`pairloss audit propose RUN`: a first rules file, from a good run, to be edited."""

import math
from collections.abc import Iterator, Sequence

from pipeline.audit.arguments import VerbParser, path
from pipeline.audit.judging.rules import parse_rules
from pipeline.audit.runs.summaries import RunSummary, read_run, write_file
from pipeline.errors import UsageError
from transforms.columns import Column
from transforms.summary.distribution import Distribution

# What may change from night to night without being a defect.
_COUNT_MARGIN = 0.05
_MEDIAN_MARGIN = 0.5
_TAIL_ALLOWED = 0.01
_FAILURE_MARGIN = 2

# Drift limits for many pairs. Of few, two samples of the same differ by about sqrt(2 / pairs), and more in one of 1000
# nights; the factor is the quantile 0.999 of Kolmogorov's distribution, with some reserve for Wasserstein's distance,
# which long tails disturb more.
_KS, _KS_NOISE = 0.1, 1.95
_WASSERSTEIN, _WASSERSTEIN_NOISE = 0.2, 3.0
_PSI, _PSI_NOISE = 0.2, 50.0


def main(argv: Sequence[str]) -> int:
    """Write or print the rules; return the exit code."""
    parser = VerbParser("propose", "Write a first rules file from a good run. Read it, and edit what is too tight.")
    parser.add_argument("run", metavar="RUN", type=path, help="directory of a finished run, local or gs://")
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
        raise UsageError(f"{run.path} has no scored pair: no rules can be made of it")
    return "\n".join(_lines(run)) + "\n"


def _lines(run: RunSummary) -> Iterator[str]:
    summary = run.summary
    lost = (summary.failed + summary.unread) / summary.listed
    yield f"# Proposed from {' '.join(run.path.split())}: {summary.scored} scored pairs, {summary.failed} failed."
    yield "# Edit it: every limit is a guess from one good run. level: warn reports, level: fail (the default) fails."
    yield "# Rules on a baseline are skipped where none is given; statistics of fewer than least_pairs pairs (30), too."
    yield "rules:"
    yield from _commented(
        f"Twice the failures of this run ({lost:.3g}), at least 1 in 1000.",
        {"rule": "failure_fraction", "max": _outward(min(1.0, max(_FAILURE_MARGIN * lost, 0.001)), up=True)},
    )
    yield from _commented("Unreadable files.", {"rule": "files_failed", "max": len(summary.failed_files)})
    fewest = math.floor(summary.scored * (1 - _COUNT_MARGIN))
    yield from _commented(f"5 % fewer pairs than this run's {summary.scored}.", {"rule": "pairs", "min": fewest})
    yield from _commented("5 % fewer pairs than the baseline.", {"rule": "count_ratio", "min": 1 - _COUNT_MARGIN})
    for distribution in summary.columns.values():
        if distribution.finite:
            yield from _column_lines(distribution)


def _column_lines(distribution: Distribution) -> Iterator[str]:
    yield ""
    column = distribution.column.name
    median = distribution.quantile(0.5)
    yield f"  # {column}: median {median:.4g}, deviation {distribution.deviation:.4g}, " + (
        f"from {distribution.minimum:.4g} to {distribution.maximum:.4g}"
    )
    share = distribution.nan / distribution.pairs
    yield from _rule({"rule": "nan_fraction", "column": column, "max": _outward(share, up=True)})
    margin = _MEDIAN_MARGIN * distribution.deviation
    # Where every pair has the same value, rounding alone must not fail.
    margin = margin or 0.01 * abs(median)
    yield from _commented(
        "Half a deviation beyond this run's median.",
        {"rule": "quantile", "column": column, "quantile": 0.5, **_limits(distribution.column, median, median, margin)},
    )
    yield from _commented(
        "1 % of the pairs may be beyond all of this run.",
        {
            "rule": "pair_limit",
            "column": column,
            **_limits(distribution.column, distribution.minimum, distribution.maximum, 0.0),
            "allowed": _TAIL_ALLOWED,
        },
    )
    yield from _commented("Distances from the baseline.", *_drift_rules(column, distribution.finite))


def _drift_rules(column: str, pairs: int) -> Iterator[dict[str, object]]:
    noise = math.sqrt(2 / pairs)
    limits = {
        "ks": max(_KS, _KS_NOISE * noise),
        "wasserstein": max(_WASSERSTEIN, _WASSERSTEIN_NOISE * noise),
        "psi": max(_PSI, _PSI_NOISE / pairs),
    }
    for distance, limit in limits.items():
        yield {"rule": "drift", "column": column, "distance": distance, "max": _outward(limit, up=True)}


def _limits(column: Column, lowest: float, highest: float, margin: float) -> dict[str, float]:
    """Limits on the bad side, or on both where neither is better."""
    least, most = _outward(lowest - margin, up=False), _outward(highest + margin, up=True)
    limits = {"lower": {"max": most}, "higher": {"min": least}, "none": {"min": least, "max": most}}
    return limits[column.direction]


def _outward(value: float, up: bool) -> float:
    """Three digits are read more easily than nine; rounded so that the value itself stays within the limit."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
    rounded = (math.ceil if up else math.floor)(value / unit) * unit
    return float(f"{rounded:.3g}")


def _commented(comment: str, *rules: dict[str, object]) -> Iterator[str]:
    yield f"  # {comment}"
    for rule in rules:
        yield from _rule(rule)


def _rule(rule: dict[str, object]) -> Iterator[str]:
    yield "  - {" + ", ".join(f"{key}: {_scalar(value)}" for key, value in rule.items()) + "}"


def _scalar(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
