"""Standard output and errors that may be closed, have readers that leave early, or lack characters."""

import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import TextIO

from pipeline.errors import CRASH

_OUTPUT, _ERRORS = 1, 2


def guarded(main: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """The exit code of a command, whatever becomes of what it prints.

    A reader that has seen enough, such as `head`, changes nothing. Characters that the terminal lacks come out escaped.
    Where a stream was closed from the beginning, nothing is printed. A full disk is one line of error, and exit code 1.

    Args:
        main: the command.
        argv: its arguments.
    """
    sys.stdout = _guard(sys.stdout, sys.__stdout__, _OUTPUT)
    sys.stderr = _guard(sys.stderr, sys.__stderr__, _ERRORS)
    code = main(argv)
    sys.stdout.flush()
    return code


class _Stream(io.TextIOWrapper):
    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        # Python flushes the rest of the buffer at its end, and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
        if self.fileno() == _OUTPUT and not isinstance(error, BrokenPipeError):
            print(f"error: cannot write to standard output: {error.strerror}; send it elsewhere", file=sys.stderr)
            raise SystemExit(CRASH) from error


def _guard(stream: TextIO | None, own: TextIO | None, descriptor: int) -> TextIO:
    """The stream, guarded if it is the process's own and not that of a test or a notebook."""
    if stream is None:
        # Otherwise the next file that is opened gets the descriptor, and with it what libraries and children print.
        os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
        return open(descriptor, "w", encoding="utf-8", closefd=False)
    if stream is not own or not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.flush()
    return _Stream(
        open(stream.fileno(), "wb", closefd=False),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
    )
