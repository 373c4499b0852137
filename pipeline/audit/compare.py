"""`pairloss audit compare RUN RUN...`: which pairs got better and which got worse than in the first run."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from pipeline.audit.pages.compare_page import build_page
from pipeline.audit.pages.render import encode, literal
from pipeline.audit.runs.difference import Difference, difference, read_compared
from pipeline.audit.runs.files import write_file
from pipeline.audit.runs.statistics import share
from pipeline.audit.runs.summaries import check_comparable
from pipeline.console.numbers import number, percent, signed
from pipeline.console.tables import make_console, print_table
from pipeline.errors import UsageError
from pipeline.flags import Parser, path

# The most important first: a narrow terminal drops the last ones.
_HEADER = ("loss", "before", "after", "gain", "better", "worse", "same", "pairs")


def main(argv: Sequence[str]) -> int:
    """Print how the losses changed, and write the page if one is wanted; return the exit code.

    Raises:
        UsageError: there is only one run, a run cannot be read or compared with the first, or the page cannot be
            written.
    """
    parser = Parser(
        "pairloss audit compare", "Show runs side by side, pair by pair: which pairs got better, and which got worse."
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", type=path, help="directories; all others are compared with the first"
    )
    parser.add_argument("--output", type=path, metavar="FILE", help="an HTML page with the pairs that changed most")
    given = parser.parse_args(argv)
    if len(given.runs) < 2:
        raise UsageError("compare needs at least two runs")
    first, *others = [read_compared(run) for run in given.runs]
    for other in others:
        check_comparable(first.summary, other.summary)
    differences = [difference(first, other) for other in others]
    print_differences(differences, make_console())
    if given.output:
        write_file(given.output, encode(build_page([first, *others], differences)))
        print(given.output)
    return 0


def print_differences(differences: Sequence[Difference], console: Console) -> None:
    """Print a table for each run that is compared with the first."""
    for found in differences:
        console.print(Text(f"{literal(found.before.path)} -> {literal(found.after.path)}", style="bold"))
        rows = []
        for column in found.columns:
            medians = (number(column.median_before), number(column.median_after), signed(column.median_gain))
            shares = (percent(share(part, column.pairs)) for part in (column.better, column.worse, column.same))
            rows.append((column.column, *medians, *shares, number(column.pairs)))
        print_table(console, _HEADER, rows, text=("loss",), elsewhere="with --output")
        console.print("; ".join(found.common.describe()), highlight=False)
