"""Tables in the terminal, and the summary of a finished run: its worst pairs, counts, failures and files."""

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.console.numbers import number, printable
from transforms.row_keys import row_key
from transforms.storage.run_files import RunFiles

# An id cut shorter than this is of no use.
_LEAST_TEXT = 16
_PIPE_WIDTH = 100_000


def print_run(summary: Mapping[str, Any], files: RunFiles, console: Console, metrics_format: str = "parquet") -> None:
    """Print the summary of the run, and where its files are.

    Args:
        summary: the content of summary.json.
        files: of the run.
        console: where to print.
        metrics_format: the text that was written beside Parquet: `csv` or `jsonl`; `parquet`: none.
    """
    counts = summary["counts"]
    losses = summary["losses"]
    first = next(iter(losses))
    if losses[first]["worst"]:
        _worst_pairs(summary["columns"], losses[first]["worst"], console)
    if summary["failures"]:
        print_table(console, ("reason", "pairs"), summary["failures"].items(), text=("reason",), title="failures")
    if summary["failed_files"]:
        files_failed = summary["failed_files"].items()
        print_table(console, ("file", "reason"), files_failed, text=("file", "reason"), title="unreadable files")
    console.print(
        f"{counts['read']} pairs read, {counts['scored']} scored, {counts['failed']} failed"
        + (f", {counts['unread']} not read" if counts["unread"] else ""),
        highlight=False,
    )
    if summary["duplicate_ids"]:
        console.print(f"{summary['duplicate_ids']} pairs have the id of another pair", highlight=False)
    if summary["precision"]:
        devices = f" on {' and '.join(summary['devices'])}" if summary["devices"] else ""
        console.print(f"computed in {' and '.join(summary['precision'])}{devices}", highlight=False)
    where = {"metrics": f"{files.metrics_directory}/*.parquet"}
    if metrics_format != "parquet":
        where[metrics_format] = f"{files.metrics_text_directory(metrics_format)}/*.{metrics_format}"
    where["summary"] = files.summary
    if counts["failed"] or counts["files_failed"]:
        where["failures"] = f"{files.failures_directory}/*.jsonl"
    for name, path in where.items():
        console.print(Text(f"{name + ':':9} {path}"), soft_wrap=True)


def print_means(summary: Mapping[str, Any], console: Console) -> None:
    """Print the mean of every loss, of how many pairs, and how many values are left out of it."""
    losses = summary["losses"].items()
    # Identical images have an infinite PSNR; images that are too small have no value.
    left_out = {"infinite": "infinite", "null": "undefined"}
    shown = [key for key in left_out if any(loss[key] for _, loss in losses)]
    rows = [(name, number(loss["mean"]), loss["count"], *(loss[key] for key in shown)) for name, loss in losses]
    print_table(
        console, ("loss", "mean", "pairs", *(left_out[key] for key in shown)), rows, text=("loss",), title="means"
    )
    if shown:
        console.print("the means are of the finite values", highlight=False)


def _worst_pairs(columns: Sequence[Mapping[str, Any]], worst: Sequence[Mapping[str, Any]], console: Console) -> None:
    notes = ("notes",) if any(row["notes"] for row in worst) else ()
    # The value after optimizing stands beside the one before, not in a column of its own.
    after = {column["loss"]: column["name"] for column in columns if column["loss"] and column["when"] == "after"}
    shown = {c["name"]: after.get(c["loss"]) for c in columns if c["name"] not in after.values()}
    rows = [
        (row_key(row), *(_value(row, *names) for names in shown.items()), *(", ".join(row[k]) for k in notes))
        for row in worst
    ]
    title = f"worst pairs by {columns[0]['name']}"
    print_table(console, ("id", *shown, *notes), rows, text=("id", "notes"), title=title, elsewhere="in metrics")


def print_table(
    console: Console,
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    text: Collection[str],
    title: str = "",
    elsewhere: str = "",
) -> None:
    """Print a table that fits the console and never cuts a number.

    Long texts are shortened in the middle. If that is not enough, the last columns are left out, and a line below the
    table counts them.

    Args:
        console: where to print.
        header: names of the columns.
        rows: one cell per column.
        text: the columns that hold text; all others hold numbers.
        title: a line above the table.
        elsewhere: where to find the columns that are left out.
    """
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(header, *cells, strict=True)]
    least = [
        min(width, max(_LEAST_TEXT, cell_len(name))) if name in text else width
        for name, width in zip(header, widths, strict=True)
    ]
    count = len(header)
    # Borders and padding take three characters per column.
    while count > 2 and sum(least[:count]) + 3 * count + 1 > console.width:
        count -= 1
    spare = console.width - sum(least[:count]) - 3 * count - 1
    if spare < 0 and header[0] in text:
        least[0] = max(1, least[0] + spare)
    spare = max(0, spare)
    table = Table(title=title or None, title_justify="left", title_style="bold")
    for index, name in enumerate(header[:count]):
        widths[index] = least[index] + min(spare, widths[index] - least[index])
        spare -= widths[index] - least[index]
        table.add_column(name, justify="left" if name in text else "right", overflow="fold", no_wrap=True)
    for row in cells:
        table.add_row(*(Text(_shortened(cell, width)) for cell, width in zip(row[:count], widths, strict=False)))
    console.print(table)
    if left_out := len(header) - count:
        console.print(f"+{left_out} column{'s' * (left_out > 1)} {elsewhere}", highlight=False)


def make_console() -> Console:
    """A console on standard output. Piped output has no width limit."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def as_text(data: str) -> Text:
    """Data such as an id as text: markup and control codes in it have no effect."""
    return Text(printable(data))


def _shortened(text: str, width: int) -> str:
    if cell_len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{set_cell_size(text, width - 1 - tail)}…{set_cell_size(text[::-1], tail)[::-1]}"


def _value(row: Mapping[str, Any], column: str, after: str | None) -> str:
    optimized = row[after] if after else None
    return number(row[column]) + ("" if optimized is None else f" > {number(optimized)}")
