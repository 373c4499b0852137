"""The children of a sandbox: they are started, given tasks, and replaced when they end.

A task and its items are what `sandbox` says.
"""

import os
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import BoundedSemaphore, Event, Lock
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa

from transforms.worker.messages import Buffer, receive, send, send_descriptor
from transforms.worker.threads import thread_count

if TYPE_CHECKING:
    from transforms.worker.sandbox import Sandbox

# A task yields these.
Item = tuple[Any, Sequence[Buffer]]

# Until a child has imported its libraries, or its task; TensorFlow takes a minute on a loaded machine.
_MOST_START_SECONDS = 600

# Errors that a task may raise for its worker to handle, by name; others come as OSError.
_ERRORS: dict[str, type[Exception]] = {
    error.__name__: error
    for error in (ValueError, pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, pa.ArrowException)
}

# The directory of the package, for a worker that found it by other means than an installation.
_ROOT = str(Path(__file__).parents[2])


class SandboxError(Exception):
    """A child came to an end over its task.

    Attributes:
        reason: a key of `SANDBOX_REASONS`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Child:
    """A child process, and this end of the connection to it."""

    def __init__(self, settings: "Sandbox", task: str) -> None:
        self._settings = settings
        self.connection, theirs = socket.socketpair()
        for end in (self.connection, theirs):
            # A program that sets a default timeout, as some HTTP clients do, makes every new socket non-blocking.
            end.settimeout(None)
        self._is_ready = False
        arguments = (theirs.fileno(), os.getpid(), settings.seconds, settings.memory, task)
        with theirs:
            self._process = subprocess.Popen(
                # Without the directory that the worker happens to be in, whose files could pass for libraries.
                [sys.executable, "-P", "-m", "transforms.worker.sandbox_child", *map(str, arguments)],
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(dict.fromkeys((_ROOT, *filter(None, sys.path)))),
                    # Address space is limited: threads and arenas that nobody uses take a lot of it.
                    "OPENBLAS_NUM_THREADS": "1",
                    "ARROW_DEFAULT_MEMORY_POOL": "system",
                },
                stdin=subprocess.DEVNULL,
                stdout=2 if settings.verbose else subprocess.DEVNULL,
                stderr=None if settings.verbose else subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # A terminal's Ctrl-C goes to a group.
                process_group=0,
            )

    def wait_until_ready(self) -> None:
        """Wait until it has imported its libraries, and give it time to import a task.

        Raises:
            OSError, EOFError: of the connection.
        """
        self._limit_waiting(_MOST_START_SECONDS)
        if not self._is_ready:
            receive(self.connection)
            self._is_ready = True

    def start_clock(self) -> None:
        """Limit the waiting for it from now on, when it has imported the task."""
        self._limit_waiting(int(self._settings.clock_seconds) + 1)

    def _limit_waiting(self, seconds: int) -> None:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self.connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", seconds, 0))

    def kill(self) -> None:
        """End the process, whatever it is doing; whoever waits for its answer learns that it is gone."""
        self._process.kill()

    def end(self) -> None:
        """End the process, and what is left of it."""
        self.connection.close()
        self.kill()
        self._process.wait()

    def death(self, error: Exception) -> SandboxError:
        """Tell from an error of the connection how the process ended."""
        if isinstance(error, BlockingIOError):
            seconds = int(self._settings.clock_seconds)
            return SandboxError("timed_out", f"nothing came of it for {seconds} s; see max_record_seconds")
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return SandboxError("crashed", f"the connection to its process broke: {error}")
        if code == -signal.SIGPROF:
            return SandboxError("timed_out", f"more than {self._settings.seconds:g} s of CPU time; max_record_seconds")
        if code == -signal.SIGKILL:
            return SandboxError("out_of_memory", "its process was killed, as Linux does where memory is short")
        ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return SandboxError("crashed", f"its process {ended}")


class Pool:
    """The children of this process, as many as it has CPUs for; a new one that is asked for comes on top of them.

    Args:
        settings: the limits.
        task: see `Sandbox.start`.

    Attributes:
        turns: a thread holds one while it has a child to decode with; there is one for each CPU.
    """

    def __init__(self, settings: "Sandbox", task: str) -> None:
        self._settings = settings
        self._most = thread_count()
        self._idle: list[_Child] = []
        self._all: set[_Child] = set()
        self._task = task
        self._ended = Event()
        self._lock = Lock()
        self.turns = BoundedSemaphore(self._most)
        # Linux ends a child with the thread that started it, so one thread that stays starts them all.
        self._starter = ThreadPoolExecutor(1, "sandbox")

    def end(self) -> None:
        """End every child, and start none from now on."""
        self._ended.set()
        for child in list(self._all):
            child.kill()

    def start(self, task: str) -> None:
        """As `Sandbox.start`."""
        with self._lock:
            self._task = task
            missing = self._most - len(self._idle)
            self._idle += [self._new() for _ in range(missing)]

    def call(
        self, task: str, arguments: Any, parts: Sequence[Buffer], file: BinaryIO | None, fresh: bool
    ) -> Iterator[Item]:
        """As `Sandbox.call`."""
        child = self._new() if fresh else self._take()
        usable = False
        try:
            yield from self._exchange(child, task, arguments, parts, file)
            usable = True
        except _TaskError as raised:
            usable = True
            raise _ERRORS.get(raised.type, OSError)(str(raised)) from None
        finally:
            if usable:
                self._give_back(child)
            else:
                self._end(child)

    def _exchange(
        self, child: _Child, task: str, arguments: Any, parts: Sequence[Buffer], file: BinaryIO | None
    ) -> Iterator[Item]:
        size = None if file is None else file.seek(0, os.SEEK_END)
        descriptor = None if file is None else _descriptor(file)
        request = {"task": task, "arguments": arguments, "file_size": size, "is_given": descriptor is not None}
        try:
            child.wait_until_ready()
        except (OSError, EOFError) as error:
            raise child.death(error) from error
        self._send(child, request, parts)
        if descriptor is not None:
            try:
                send_descriptor(child.connection, descriptor)
            except OSError as error:
                raise child.death(error) from error
        while True:
            try:
                header, received = receive(child.connection)
            except (OSError, EOFError) as error:
                raise child.death(error) from error
            match header["kind"]:
                case "ready":
                    child.start_clock()
                case "item":
                    yield header["item"], received
                case "done":
                    return
                case "read":
                    assert file is not None, "it asked for its size"
                    file.seek(header["offset"])
                    self._send(child, None, [file.read(header["size"])])
                case "out_of_memory":
                    limit = self._settings.memory
                    raise SandboxError("out_of_memory", f"more than {limit} bytes of memory; max_record_memory")
                case "error":
                    raise _TaskError(header["type"], header["message"])

    def _send(self, child: _Child, header: Any, parts: Sequence[Buffer]) -> None:
        try:
            send(child.connection, header, parts)
        except OSError as error:
            raise child.death(error) from error

    def _take(self) -> _Child:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self._new()

    def _give_back(self, child: _Child) -> None:
        with self._lock:
            # Besides those that decode, one reads, and another begins with the next file.
            if len(self._idle) <= self._most + 1:
                self._idle.append(child)
                return
        self._end(child)

    def _new(self) -> _Child:
        if self._ended.is_set():
            raise RuntimeError("the work was interrupted")
        child = self._starter.submit(_Child, self._settings, self._task).result()
        self._all.add(child)
        if self._ended.is_set():
            child.kill()
        return child

    def _end(self, child: _Child) -> None:
        self._all.discard(child)
        child.end()


def _descriptor(file: BinaryIO) -> int | None:
    """The descriptor of a local file; None of any other."""
    try:
        descriptor = file.fileno()
    except (AttributeError, OSError):
        return None
    return descriptor if stat.S_ISREG(os.fstat(descriptor).st_mode) else None


class _TaskError(Exception):
    """An error that a task raised in its child, by the name of its type."""

    def __init__(self, type: str, message: str) -> None:
        super().__init__(message)
        self.type = type
