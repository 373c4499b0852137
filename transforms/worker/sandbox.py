"""Work on untrusted bytes in child processes, where a crash, a hang or a bomb costs one record and not the run.

A task is a generator function in a module of this project, `(arguments, parts, file) -> items`: its arguments are what
JSON can hold, its parts are bytes, and an item is a pair of such a value and bytes. `Sandbox.call` runs one in a child,
`Sandbox.each` runs one over many records and finds the record that ends its child. The worker opens the file that a
task reads; a child gets a local one's descriptor, and asks for ranges of one in a store.

Linux sets every limit. macOS has no limit of memory here, and a child of a killed worker ends when it next asks for
something; `enabled=False` runs the tasks in the worker's own process, without any limit.
"""

import json
import os
import pkgutil
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import BoundedSemaphore, Event, Lock
from typing import Any, BinaryIO

import pyarrow as pa

from transforms.settings import setting
from transforms.worker.messages import Buffer, receive, send, send_descriptor
from transforms.worker.threads import thread_count

# A task yields these.
Item = tuple[Any, Sequence[Buffer]]

# Reasons for which a record, or a chunk of a file, fails over which a child came to an end.
SANDBOX_REASONS = {
    "crashed": "a C library crashed over it, in a process of its own; the message names the signal",
    "timed_out": "reading it took more CPU time than `max_record_seconds`, or hung",
    "out_of_memory": "reading it took more memory than `max_record_memory`, or than there is",
}

# A loaded machine takes many seconds for one of CPU time; a record that waits for something takes none at all.
_WALL_SECONDS_PER_SECOND = 10
# Until a child has imported its libraries; TensorFlow takes a minute on a loaded machine.
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


@dataclass(frozen=True)
class Sandbox:
    """Where untrusted bytes are parsed.

    Attributes:
        enabled: whether in child processes; in the worker's own, none of the limits holds.
        seconds: most CPU time that one record, or one step through a file, may take; for a file once more per 256 MiB.
        memory: most bytes that a child may take beyond its libraries, and beyond twice the size of the file it reads.
        verbose: whether what C libraries print is shown.

    Raises:
        ValueError: for a limit that is not positive.
    """

    enabled: bool = setting(
        "decode images and parse files in child processes, where a record that crashes, hangs or takes too much "
        "memory fails alone",
        True,
        flag="sandbox",
    )
    seconds: float = setting(
        "most CPU time that one record, or one step through a file, may take, for a file once more per 256 MiB; ten "
        "times as long on the clock",
        10.0,
        flag="max_record_seconds",
        type=float,
    )
    memory: int = setting(
        "most bytes of memory that one record may take on the way to its pixels; a file also gets twice its own size",
        4 << 30,
        flag="max_record_memory",
        positive=True,
    )
    verbose: bool = False

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.memory <= 0:
            raise ValueError(f"the limits of a record are {self.seconds} s and {self.memory} bytes, not positive")

    @property
    def clock_seconds(self) -> float:
        """Most time on the clock that one record may take if it waits instead of computing."""
        return _WALL_SECONDS_PER_SECOND * self.seconds

    def start(self, task: str) -> None:
        """Start the children that a task takes, without waiting for them: they take 0.3 s, TensorFlow takes more.

        Args:
            task: `module:function`, whose module children import before they are asked for anything.
        """
        self._place().start(task)

    def call(
        self,
        task: str,
        arguments: Any,
        parts: Sequence[Buffer] = (),
        file: BinaryIO | None = None,
        fresh: bool = False,
    ) -> Iterator[Item]:
        """Run a task, and yield its items as they come.

        Args:
            task: `module:function`.
            arguments: for the task, of what JSON can hold.
            parts: bytes for the task.
            file: an opened file that the task reads from.
            fresh: whether to take a child that has done nothing yet.

        Raises:
            SandboxError: the child came to an end.
            ValueError, OSError, pa.ArrowException: the task raised it.
            Exception: what reading the file raised.
        """
        return self._place().call(task, arguments, parts, file, fresh)

    def each(
        self,
        task: str,
        arguments: Mapping[str, Any],
        records: Sequence[Sequence[Buffer | None]],
        apart: bool = False,
    ) -> Iterator[Item | SandboxError]:
        """Run a task that yields an item per record over records of bytes and nulls; see `records_of`.

        As many threads as there are CPUs have a child at a time.

        A record over which a child ends is tried again, alone and by a child that has done nothing yet, before it is
        blamed; not one that took too long, for that is measured record by record.

        Args:
            task: `module:function`.
            arguments: for the task, of what JSON can hold.
            records: bytes and nulls for the task.
            apart: whether the task has children of its own, because it loads libraries that are too large for others.

        Yields:
            per record, in order, its item, or the end it made of its child.
        """
        # The same one to the end: none is started after an interruption.
        place = self._place(task if apart else "")
        with place.turns:
            done = 0
            alone = False
            while done < len(records):
                part = records[done : done + 1] if alone else records[done:]
                sizes = [[None if value is None else len(value) for value in record] for record in part]
                parts = [value for record in part for value in record if value is not None]
                try:
                    for item in place.call(task, {"sizes": sizes, **arguments}, parts, None, alone):
                        done += 1
                        yield item
                    alone = False
                except SandboxError as error:
                    blamed = alone or error.reason == "timed_out"
                    if blamed:
                        done += 1
                        yield error
                    alone = not blamed

    def _place(self, task: str = "") -> "_Pool | _Here":
        """Where to run tasks: with a task, in children that serve it alone."""
        if not self.enabled:
            return _Here()
        with _pools_lock:
            key = os.getpid(), self, task
            if key not in _pools:
                _pools[key] = _Pool(self, task)
            return _pools[key]


def records_of(arguments: Mapping[str, Any], parts: Sequence[Buffer]) -> Iterator[list[bytes | None]]:
    """In a task of `Sandbox.each`, the records again."""
    left = iter(parts)
    for sizes in arguments["sizes"]:
        yield [None if size is None else bytes(next(left)) for size in sizes]


def end_children() -> None:
    """End every child of this process, in the middle of whatever it does: whoever waits for one gets an error.

    For the handler of a signal, so it waits for nothing. Calls that come later start children anew.
    """
    for pool in list(_pools.values()):
        pool.end()
    _pools.clear()


class _Here:
    """The worker's own process, as a place to run tasks in."""

    turns = nullcontext()

    def start(self, task: str) -> None:
        """Do nothing: it runs."""

    def call(
        self, task: str, arguments: Any, parts: Sequence[Buffer], file: BinaryIO | None, fresh: bool
    ) -> Iterator[Item]:
        # Through JSON, so that a task sees the same as in a child.
        yield from pkgutil.resolve_name(task)(json.loads(json.dumps(arguments)), parts, file)


class _Child:
    """A child process, and this end of the connection to it."""

    def __init__(self, settings: Sandbox, task: str) -> None:
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
        """Wait until it has imported its libraries; from then on there is a limit.

        Raises:
            OSError, EOFError: of the connection.
        """
        if not self._is_ready:
            self._limit_waiting(_MOST_START_SECONDS)
            receive(self.connection)
            self._limit_waiting(int(_WALL_SECONDS_PER_SECOND * self._settings.seconds) + 1)
            self._is_ready = True

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
            seconds = int(_WALL_SECONDS_PER_SECOND * self._settings.seconds)
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


class _Pool:
    """The children of this process: those that wait for a task, and who may start more."""

    def __init__(self, settings: Sandbox, task: str) -> None:
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
        self._ended.set()
        for child in list(self._all):
            child.kill()

    def start(self, task: str) -> None:
        with self._lock:
            self._task = task
            missing = self._most - len(self._idle)
            self._idle += [self._new() for _ in range(missing)]

    def call(
        self, task: str, arguments: Any, parts: Sequence[Buffer], file: BinaryIO | None, fresh: bool
    ) -> Iterator[Item]:
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
            if len(self._idle) <= self._most:
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


# By process, for a fork has none of its parent's children, and by the task that has children of its own.
_pools: dict[tuple[int, Sandbox, str], _Pool] = {}
_pools_lock = Lock()
