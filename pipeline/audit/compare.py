"""`pairloss audit compare RUN...`: which pairs got better than in the first run; of a single run, its candidates."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from pipeline.audit.pages.candidates_view import view_candidates
from pipeline.audit.pages.compare_page import build_page
from pipeline.audit.pages.render import encode, literal
from pipeline.audit.runs.candidates import Candidates, compare_candidates
from pipeline.audit.runs.difference import Difference, difference, read_compared
from pipeline.audit.runs.files import write_file
from pipeline.audit.runs.statistics import share
from pipeline.audit.runs.summaries import check_comparable
from pipeline.console.numbers import interval, number, percent, signed
from pipeline.console.tables import make_console, print_table
from pipeline.errors import UsageError
from pipeline.flags import Parser, path

# The most important first: a narrow terminal drops the last ones.
_HEADER = ("mean gain", "95 % interval", "wins", "median gain", "better", "worse", "same", "pairs")


def main(argv: Sequence[str]) -> int:
    """Print how the losses changed, and write the page if one is wanted; return the exit code.

    Raises:
        UsageError: there is only one run, without candidates, a run cannot be read or compared with the first, or the
            page cannot be written.
    """
    parser = Parser(
        "pairloss audit compare",
        "Show runs side by side, pair by pair: which pairs got better, and which got worse. With a single run, show "
        "its candidates side by side.",
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", type=path, help="directories; all others are compared with the first"
    )
    parser.add_argument("--output", type=path, metavar="FILE", help="an HTML page with the pairs that changed most")
    given = parser.parse_args(argv)
    first, *others = runs = [read_compared(run) for run in given.runs]
    for other in others:
        check_comparable(first.summary, other.summary)
    candidates = Candidates((), ()) if others else compare_candidates(first)
    differences = candidates.differences or [difference(first, other) for other in others]
    if not differences:
        raise UsageError(f"{first.path} has no candidates to compare; compare needs a run with several, or two runs")
    print_differences(differences, make_console())
    if notice := candidates.notice:
        print(notice)
    if given.output:
        write_file(given.output, encode(build_page(runs, differences, view_candidates(candidates))))
        print(given.output)
    return 0


def print_differences(differences: Sequence[Difference], console: Console) -> None:
    """Print a table for each run that is compared with the first."""
    for found in differences:
        console.print(Text(" -> ".join(map(literal, found.names)), style="bold"))
        rows = []
        for column in found.columns:
            gain = column.mean_gain
            medians = (number(column.median_before), number(column.median_after))
            gains = (signed(gain.mean), interval(gain.low, gain.high), percent(column.wins), signed(column.median_gain))
            shares = (percent(share(part, column.pairs)) for part in (column.better, column.worse, column.same))
            rows.append((column.column, *medians, *gains, *shares, number(column.pairs)))
        names = [literal(name, 20) for name in found.names] if found.after.candidate else ["before", "after"]
        print_table(console, ("loss", *names, *_HEADER), rows, text=("loss",), elsewhere="with --output")
        console.print("; ".join(found.describe()), highlight=False)
