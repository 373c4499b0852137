"""`pairloss audit gate RUN --rules=rules.yaml`: may this dataset ship?

Exit codes: 0 passed, perhaps with warnings; 1 a crash; 2 the request was wrong; 3 a rule failed.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.audit.judging.rule import Rule
from pipeline.audit.judging.rules import read_rules
from pipeline.audit.judging.verdict import Verdict, judge
from pipeline.audit.runs.files import write_file
from pipeline.audit.runs.summaries import RunSummary, read_run, read_summary
from pipeline.audit.runs.verdict_file import Outcome, skip_reasons
from pipeline.console.numbers import number, printable
from pipeline.console.tables import as_text, make_console
from pipeline.flags import Parser, path
from transforms.storage.json_files import to_json
from transforms.storage.run_files import RunFiles

PASSED, FAILED = 0, 3

_STYLES: dict[Outcome, str] = {"fail": "bold red", "warn": "yellow", "skipped": "dim", "pass": "green"}


def main(argv: Sequence[str]) -> int:
    """Judge a run, print the verdict, write it into the run's directory; return the exit code."""
    parser = Parser(
        "pairloss audit gate", "Judge a finished run by rules. Exit codes: 0 passed, 2 wrong request, 3 failed."
    )
    parser.add_argument("run", metavar="RUN", type=path, help="directory of a finished run, local, gs:// or s3://")
    parser.add_argument(
        "--rules", required=True, type=path, metavar="FILE", help="YAML or JSON; `audit propose` writes one"
    )
    parser.add_argument("--baseline", type=path, metavar="PATH", help="a good run's directory, or its summary.json")
    parser.add_argument(
        "--format", choices=tuple(FORMATS), default="table", help="github: annotations for GitHub Actions"
    )
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="same as --format=json")
    given = parser.parse_args(argv)
    baseline = read_summary(given.baseline) if given.baseline else None
    return gate(given.run, given.rules, read_rules(given.rules), baseline, given.format)


def gate(run: str, path: str, rules: Sequence[Rule], baseline: RunSummary | None = None, format: str = "table") -> int:
    """Judge a run, write its verdict.json, print the verdict; return the exit code.

    Args:
        run: directory of a run that has ended.
        path: the file of the rules, for messages.
        rules: the rules in it.
        baseline: the summary to compare with; None: rules that need a baseline are skipped.
        format: a key of `FORMATS`.

    Raises:
        UsageError: the run cannot be read, rules and run do not fit together, or the verdict cannot be written.
    """
    verdict = judge(read_run(run), rules, path, baseline)
    write_file(RunFiles(run).verdict, to_json(verdict.to_json()))
    FORMATS[format](verdict)
    return FAILED if verdict.outcome == "fail" else PASSED


def print_table(verdict: Verdict, console: Console | None = None) -> None:
    """Print the verdict for people, the most serious results first and skipped rules in one line per reason."""
    console = console or make_console()
    judged = [result for result in verdict.results if result.outcome != "skipped"]
    table = Table()
    sliced = any(result.slice for result in judged)
    for name in ("rule", *(["slice"] if sliced else []), "value", "limit", "verdict"):
        numeric = name in ("value", "limit")
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    for result in judged:
        outcome = Text(result.outcome.upper(), style=_STYLES[result.outcome])
        if result.reason:
            outcome.append(f" {result.reason}", style="dim")
        slices = [as_text(result.slice or "all")] if sliced else []
        table.add_row(as_text(result.what), *slices, number(result.value), result.limit, outcome)
    console.print(table)
    for result in verdict.results:
        if result.examples:
            ids = ", ".join(str(example["id"]) for example in result.examples)
            console.print(as_text(f"{result.what}: {ids}"), soft_wrap=True)
    for reason, count in skip_reasons(verdict.to_json()["results"]):
        console.print(Text(f"{count} rule{'s' * (count > 1)} skipped: {reason}", style=_STYLES["skipped"]))
    numbers: Counter[str] = Counter(result.outcome for result in verdict.results)
    parts = ", ".join(f"{numbers[outcome]} {past}" for outcome, past in _PAST.items() if numbers[outcome])
    console.print(Text(f"{verdict.outcome.upper()}: {parts}", style=_STYLES[verdict.outcome]))


def print_json(verdict: Verdict) -> None:
    """Print the content of verdict.json."""
    print(json.dumps(verdict.to_json(), indent=1))


def print_github(verdict: Verdict) -> None:
    """Print violations as annotations of the rules file, in the syntax that GitHub Actions reads from a log."""
    commands = {"fail": "error", "warn": "warning"}
    for result in verdict.results:
        if result.outcome in commands:
            where = f" ({result.slice})" if result.slice else ""
            reason = f", {result.reason}" if result.reason else ""
            ids = ", ".join(str(example["id"]) for example in result.examples)
            message = f"{result.what}{where} is {number(result.value)}, limit {result.limit}{reason}" + (
                f"; for example {ids}" if ids else ""
            )
            place = f"file={_escaped(verdict.rules, ':,')},line={result.line}," if result.line else ""
            print(f"::{commands[result.outcome]} {place}title=pairloss gate::{_escaped(message)}")
    print(f"{verdict.outcome}: {verdict.run}")


FORMATS: dict[str, Callable[[Verdict], None]] = {"table": print_table, "json": print_json, "github": print_github}

_PAST = {"fail": "failed", "warn": "warned", "skipped": "skipped", "pass": "passed"}


def _escaped(text: str, more: str = "") -> str:
    """Data without line breaks and percent-encoded, so that it cannot end a command's line or property."""
    text = printable(text)
    for character in f"%{more}":
        text = text.replace(character, f"%{ord(character):02X}")
    return text
