"""Show how far a run is: one live line on a terminal, a plain line now and then elsewhere."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)

from transforms.counters import counted_in_process, reset_in_process

_LIVE_SECONDS = 0.25
_PLAIN_SECONDS = 15.0


@contextmanager
def progress(quiet: bool) -> Iterator[None]:
    """Show the progress of what the `with` block runs in this process, on standard error."""
    reset_in_process()
    if quiet:
        yield
        return
    # A descriptor of its own: the import of TensorFlow silences the usual one for a moment.
    with os.fdopen(os.dup(2), "w") as stream:
        console = Console(file=stream)
        stop = threading.Event()
        show = _show_live if console.is_terminal else _show_plain
        thread = threading.Thread(target=show, args=(console, stop), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _show_live(console: Console, stop: threading.Event) -> None:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate("pairs/s"),
        TimeRemainingColumn(),
        TextColumn("[red]{task.fields[failed]} failed"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("listing", total=None, failed=0)
        running = True
        while running:
            running = not stop.wait(_LIVE_SECONDS)
            counted = counted_in_process()
            described = "scoring" if counted["pairs_done"] else "loading" if counted["pairs_listed"] else "listing"
            bar.update(
                task,
                description=described,
                completed=counted["pairs_done"],
                total=counted["pairs_listed"] or None,
                failed=counted["pairs_failed"],
            )


class _Rate(TextColumn):
    def render(self, task: Task):  # type: ignore[no-untyped-def]
        return f"{task.speed or 0:.1f} {self.text_format}"


def _show_plain(console: Console, stop: threading.Event) -> None:
    done = 0
    while not stop.wait(_PLAIN_SECONDS):
        counted = counted_in_process()
        # The speed since the line before: loading the network and chunks found done say nothing about what is to come.
        rate = (counted["pairs_done"] - done) / _PLAIN_SECONDS
        done = counted["pairs_done"]
        left = f", {rate:.1f} pairs/s, {(counted['pairs_listed'] - done) / rate:.0f} s left" if rate else ""
        line = f"{done} of {counted['pairs_listed']} pairs, {counted['pairs_failed']} failed{left}"
        console.print(line, highlight=False, soft_wrap=True)
