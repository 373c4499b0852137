"""Print a finished run: its worst pairs, counts, failures by reason, and the paths of its files."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from transforms.storage.run_files import RunFiles

_UNDEFINED = "-"


def print_run(summary: Mapping[str, Any], files: RunFiles, console: Console) -> None:
    """Print the summary of the run."""
    counts = summary["counts"]
    losses = summary["losses"]
    first = next(iter(losses))
    if losses[first]["worst"]:
        console.print(_worst_pairs(summary["columns"], losses[first]["worst"]))
    if summary["failures"]:
        console.print(_table("failures", ("reason", "pairs"), summary["failures"].items()))
    if summary["failed_files"]:
        console.print(_table("unreadable files", ("file", "reason"), summary["failed_files"].items()))
    console.print(
        f"{counts['read']} pairs read, {counts['scored']} scored, {counts['failed']} failed"
        + (f", {counts['unread']} not read" if counts["unread"] else ""),
        highlight=False,
    )
    if summary["precision"]:
        console.print(f"computed in {' and '.join(summary['precision'])}", highlight=False)
    where = {"metrics": f"{files.metrics_directory}/*.parquet", "summary": files.summary}
    if counts["failed"] or counts["files_failed"]:
        where["failures"] = f"{files.failures_directory}/*.jsonl"
    for name, path in where.items():
        console.print(Text(f"{name + ':':9} {path}"), soft_wrap=True)


def _worst_pairs(columns: Sequence[Mapping[str, Any]], worst: Sequence[Mapping[str, Any]]) -> Table:
    notes = ("notes",) if any(row["notes"] for row in worst) else ()
    # The value after optimizing stands in the same cell as the loss.
    after = {column["loss"]: column["name"] for column in columns if column["loss"] and column["when"] == "after"}
    shown = {c["name"]: after.get(c["loss"]) for c in columns if c["name"] not in after.values()}
    rows = (
        (row["id"], *(_value(row, *names) for names in shown.items()), *(", ".join(row[k]) for k in notes))
        for row in worst
    )
    return _table(f"worst pairs by {columns[0]['name']}", ("id", *shown, *notes), rows)


def _table(title: str, header: tuple[str, ...], rows: Any) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in header:
        table.add_column(
            name, justify="left" if name in ("id", "notes", "reason", "file") else "right", overflow="fold"
        )
    for row in rows:
        table.add_row(*(as_text(str(cell)) for cell in row))
    return table


def as_text(data: str) -> Text:
    """The data as text in which neither markup nor a terminal's control codes take effect."""
    return Text(printable(data))


def printable(data: str) -> str:
    """The data with every unprintable character escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in data)


def _value(row: Mapping[str, Any], column: str, after: str | None) -> str:
    optimized = row[after] if after else None
    return _number(row[column]) + ("" if optimized is None else f" > {_number(optimized)}")


def _number(value: float | None) -> str:
    return _UNDEFINED if value is None else f"{value:.4g}"
