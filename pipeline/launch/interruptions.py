"""Ctrl-C on the launcher, and SIGTERM, which is taken for Ctrl-C."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from transforms.worker.sandbox import end_children

_Handler = Callable[[int, FrameType | None], Any]


@contextmanager
def termination_as_interruption() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C in the block, also as a container's first process, for which Linux would ignore it."""
    with _replaced({signal.SIGTERM: (signal.SIG_DFL, _interrupt)}):
        yield


@contextmanager
def noted_interruptions() -> Iterator[Callable[[], bool]]:
    """Remember in the block whether Ctrl-C was pressed, or SIGTERM came, which still raise KeyboardInterrupt.

    In the block of `termination_as_interruption`, whose handler it replaces.
    """
    pressed = threading.Event()
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _interrupt}

    def note(number: int, frame: FrameType | None) -> None:
        pressed.set()
        # Threads may wait for a picture that takes long, and Python waits for threads.
        end_children()
        handlers[signal.Signals(number)](number, frame)

    with _replaced({number: (handler, note) for number, handler in handlers.items()}):
        yield pressed.is_set


def _interrupt(_: int, frame: FrameType | None) -> None:
    """Do on SIGTERM what is done on Ctrl-C, which a shell ignores for programs in the background."""
    handler = signal.getsignal(signal.SIGINT)
    (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)


@contextmanager
def _replaced(replacements: Mapping[signal.Signals, tuple[_Handler | signal.Handlers, _Handler]]) -> Iterator[None]:
    """In the block, replace the first of two handlers of a signal by the second, but none that a caller has set."""
    # Python lets only the main thread handle signals.
    is_main = threading.current_thread() is threading.main_thread()
    ours = {n: pair for n, pair in replacements.items() if is_main and signal.getsignal(n) is pair[0]}
    for number, (_, replacement) in ours.items():
        signal.signal(number, replacement)
    try:
        yield
    finally:
        for number, (replaced, _) in ours.items():
            signal.signal(number, replaced)
