"""`pairloss audit gate RUN --rules=rules.yaml`: may this dataset ship?

Exit codes: 0 it passes, perhaps with warnings; 1 the gate itself broke; 2 the request was wrong; 3 a rule failed.
"""

import json
import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.audit.arguments import VerbParser, path
from pipeline.audit.judging.rules import Rule, read_rules
from pipeline.audit.judging.verdict import Outcome, Result, Verdict, judge
from pipeline.audit.runs.summaries import RunSummary, read_run, read_summary, write_file
from pipeline.console.tables import as_text, printable
from transforms.storage.json_files import to_json
from transforms.storage.run_files import RunFiles

PASSED, FAILED = 0, 3

_STYLES: dict[Outcome, str] = {"fail": "bold red", "warn": "yellow", "skipped": "dim", "pass": "green"}


def main(argv: Sequence[str]) -> int:
    """Judge a run, print the verdict, leave it in the run's directory; return the exit code."""
    parser = VerbParser("gate", "Judge a finished run by rules. Exit codes: 0 passed, 2 wrong request, 3 failed.")
    parser.add_argument("run", metavar="RUN", type=path, help="directory of a finished run, local or gs://")
    parser.add_argument("--rules", required=True, type=path, metavar="FILE", help="YAML or JSON; see audit propose")
    parser.add_argument("--baseline", type=path, metavar="PATH", help="a good run's directory, or its summary.json")
    parser.add_argument("--format", choices=tuple(FORMATS), default="table", help="github: annotations for its CI")
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="the same as --format=json")
    given = parser.parse_args(argv)
    baseline = read_summary(given.baseline) if given.baseline else None
    return gate(given.run, given.rules, read_rules(given.rules), baseline, given.format)


def gate(run: str, path: str, rules: Sequence[Rule], baseline: RunSummary | None = None, format: str = "table") -> int:
    """Judge a run, write its verdict.json, print the verdict; return the exit code.

    Args:
        run: directory of a run that has ended.
        path: file of the rules.
        rules: the rules in it.
        baseline: the summary to compare with; None: rules that need a baseline are skipped.
        format: a key of `FORMATS`.

    Raises:
        UsageError: the run cannot be read, they do not fit, or the verdict cannot be written.
    """
    verdict = judge(read_run(run), rules, path, baseline)
    write_file(RunFiles(run).verdict, to_json(verdict.to_json()))
    FORMATS[format](verdict)
    return FAILED if verdict.outcome == "fail" else PASSED


def print_table(verdict: Verdict, console: Console | None = None) -> None:
    """Print the verdict for people, the most serious first."""
    # Piped output has no width limit.
    console = console or Console(width=None if sys.stdout.isatty() else 140)
    table = Table()
    sliced = any(result.slice for result in verdict.results)
    for name in ("rule", *(["slice"] if sliced else []), "value", "limit", "verdict"):
        table.add_column(name, justify="right" if name in ("value", "limit") else "left", overflow="fold")
    for result in verdict.results:
        outcome = Text(result.outcome.upper(), style=_STYLES[result.outcome])
        if result.reason:
            outcome.append(f" {result.reason}", style="dim")
        slices = [as_text(result.slice or "all")] if sliced else []
        table.add_row(as_text(result.what), *slices, Text(_value(result)), Text(result.limit), outcome)
    console.print(table)
    for result in verdict.results:
        if result.examples:
            ids = ", ".join(str(example["id"]) for example in result.examples)
            console.print(as_text(f"{result.what}: {ids}"), soft_wrap=True)
    numbers = {outcome: sum(result.outcome == outcome for result in verdict.results) for outcome in _STYLES}
    told = ", ".join(f"{number} {_PAST[outcome]}" for outcome, number in numbers.items() if number)
    console.print(Text(f"{verdict.outcome.upper()}: {told}", style=_STYLES[verdict.outcome]))


def print_json(verdict: Verdict) -> None:
    """Print what verdict.json holds."""
    print(json.dumps(verdict.to_json(), indent=1))


def print_github(verdict: Verdict) -> None:
    """Print violations as annotations of the rules' file, as GitHub's workflows read them from a log."""
    commands = {"fail": "error", "warn": "warning"}
    for result in verdict.results:
        if result.outcome in commands:
            where = f" ({result.slice})" if result.slice else ""
            reason = f", {result.reason}" if result.reason else ""
            ids = ", ".join(str(example["id"]) for example in result.examples)
            message = f"{result.what}{where} is {_value(result)}, limit {result.limit}{reason}" + (
                f"; such as {ids}" if ids else ""
            )
            place = f"file={_escaped(verdict.rules, ':,')},line={result.line}," if result.line else ""
            print(f"::{commands[result.outcome]} {place}title=pairloss gate::{_escaped(message)}")
    print(f"{verdict.outcome}: {verdict.run}")


FORMATS: dict[str, Callable[[Verdict], None]] = {"table": print_table, "json": print_json, "github": print_github}

_PAST = {"fail": "failed", "warn": "warned", "skipped": "skipped", "pass": "passed"}


def _value(result: Result) -> str:
    if result.value is None:
        return "-"
    return f"{result.value:g}" if isinstance(result.value, int) else f"{result.value:.4g}"


def _escaped(text: str, more: str = "") -> str:
    """Without line breaks and percent-encoded, as GitHub's commands want it, so that data ends no line or property."""
    text = printable(text)
    for character in f"%{more}":
        text = text.replace(character, f"%{ord(character):02X}")
    return text
