"""Show how far a run is: one live line on a terminal, elsewhere a plain line every 15 seconds."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, Task, TextColumn, TimeRemainingColumn

from pipeline.console.counts import Counts, Look, counts_here, counts_of_directory

_LIVE_SECONDS = 0.25
_PLAIN_SECONDS = 15.0
# The speed is an average over this time: if only whole chunks can be counted, one may take a minute.
_SPEED_SECONDS = 300.0


@contextmanager
def progress(quiet: bool, directory: str | None = None) -> Iterator[None]:
    """Show the progress of the run in the `with` block, on standard error.

    Args:
        quiet: show nothing.
        directory: of the run, if other processes do the work, so that only its files show the progress.
    """
    if quiet:
        yield
        return
    # This takes a descriptor of its own, because the import of TensorFlow silences standard error for a moment.
    with counts_of_directory(directory) if directory else counts_here() as look, os.fdopen(os.dup(2), "w") as stream:
        console = Console(file=stream)
        stop = threading.Event()
        show = _show_live if console.is_terminal else _show_plain
        thread = threading.Thread(target=show, args=(console, stop, look), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _show_live(console: Console, stop: threading.Event, look: Look) -> None:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate("pairs/s"),
        TimeRemainingColumn(),
        TextColumn("[red]{task.fields[failed]}"),
    )
    with Progress(*columns, console=console, transient=True, speed_estimate_period=_SPEED_SECONDS) as bar:
        task = bar.add_task("", total=None, failed="")
        running = True
        while running:
            counts = look()
            bar.update(
                task,
                description="scoring" if counts.done else "loading" if counts.listed else "listing",
                completed=counts.done,
                total=counts.listed or None,
                failed="" if counts.failed is None else f"{counts.failed} failed",
            )
            running = not stop.wait(_LIVE_SECONDS)


class _Rate(TextColumn):
    def render(self, task: Task):  # type: ignore[no-untyped-def]
        return f"{task.speed:.1f} {self.text_format}" if task.speed else ""


def _show_plain(console: Console, stop: threading.Event, look: Look) -> None:
    # This bar shows nothing; it computes the speed and the time left.
    bar = Progress(disable=True, speed_estimate_period=_SPEED_SECONDS)
    task = bar.add_task("", total=None)
    while not stop.wait(_PLAIN_SECONDS):
        counts = look()
        bar.update(task, completed=counts.done, total=counts.listed or None)
        console.print(_describe(counts, bar.tasks[task]), highlight=False, soft_wrap=True)


def _describe(counts: Counts, task: Task) -> str:
    if not (counts.listed or counts.done):
        return "listing the pairs"
    parts = [f"{counts.done} of {counts.listed} pairs" if counts.listed else f"{counts.done} pairs"]
    if counts.failed is not None:
        parts.append(f"{counts.failed} failed")
    if task.speed:
        parts.append(f"{task.speed:.1f} pairs/s")
    if task.time_remaining:
        parts.append(f"{task.time_remaining:.0f} s left")
    return ", ".join(parts)
