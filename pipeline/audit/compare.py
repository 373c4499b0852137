"""`pairloss audit compare RUN RUN...`: which pairs got better and which worse than in the first run."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.audit.arguments import VerbParser, path
from pipeline.audit.pages.compare_page import build_page
from pipeline.audit.pages.render import encode, literal, number, percent
from pipeline.audit.pages.views import share
from pipeline.audit.runs.difference import Contrast, make_contrast, pairs_compared, read_side
from pipeline.audit.runs.summaries import check_comparable, write_file
from pipeline.errors import UsageError


def main(argv: Sequence[str]) -> int:
    """Print how the losses moved, and write the page if one is wanted; return the exit code.

    Raises:
        UsageError: there is but one run, a run cannot be read or compared with the first, or the page cannot be
            written.
    """
    parser = VerbParser("compare", "Show runs side by side, pair by pair: which got better, which worse.")
    parser.add_argument("runs", metavar="RUN", nargs="+", type=path, help="directories; the first is the yardstick")
    parser.add_argument("--output", type=path, metavar="FILE", help="an HTML page with the pairs that moved furthest")
    given = parser.parse_args(argv)
    if len(given.runs) < 2:
        raise UsageError("compare needs at least two runs")
    first, *others = [read_side(run) for run in given.runs]
    for other in others:
        check_comparable(first.summary, other.summary)
    contrasts = [make_contrast(first, other) for other in others]
    # What is not a terminal takes lines of any length.
    print_contrasts(contrasts, Console(width=None if sys.stdout.isatty() else 140))
    if given.output:
        write_file(given.output, encode(build_page([first, *others], contrasts)))
        print(given.output)
    return 0


def print_contrasts(contrasts: Sequence[Contrast], console: Console) -> None:
    """Print a table per contrast."""
    for contrast in contrasts:
        console.print(Text(f"{literal(contrast.before.path)} -> {literal(contrast.after.path)}", style="bold"))
        table = Table()
        for name in ("loss", "median before", "median after", "median gain", "better", "same", "worse", "pairs"):
            table.add_column(name, justify="left" if name == "loss" else "right")
        for moved in contrast.movements:
            medians = (moved.median_before, moved.median_after, moved.median_gain)
            shares = (share(part, moved.pairs) for part in (moved.better, moved.same, moved.worse))
            table.add_row(moved.column, *map(number, medians), *map(percent, shares), number(moved.pairs))
        console.print(table)
        console.print("; ".join(pairs_compared(contrast.joined)), highlight=False)
