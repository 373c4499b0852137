"""SIGTERM as Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def interrupt(number: int, frame: FrameType | None) -> None:
    """Do on SIGTERM what is done on Ctrl-C, which a shell ignores for programs in the background."""
    handler = signal.getsignal(signal.SIGINT)
    (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)


@contextmanager
def termination_as_interruption() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C in the block, also as a container's first process, for which Linux would ignore it."""
    # Python lets only the main thread handle signals, and a caller may have a handler of its own.
    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
