"""Work on untrusted bytes in child processes, where a crash, a hang or a bomb costs one record and not the run.

A task is a generator function in a module of this project, `(arguments, parts, file) -> items`: its arguments are what
JSON can hold, its parts are bytes, and an item is a pair of such a value and bytes. `Sandbox.call` runs one in a child,
`Sandbox.each` runs one over many records and finds the record that ends its child. The worker opens the file that a
task reads; a child gets a local one's descriptor, and asks for ranges of one in a store.

Linux sets every limit. macOS has no limit of memory here, and a child of a killed worker ends when it next asks for
something; `enabled=False` runs the tasks in the worker's own process, without any limit.
"""

import json
import math
import os
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any, BinaryIO

from transforms.settings import setting
from transforms.worker.messages import Buffer
from transforms.worker.sandbox_pool import Item, Pool, SandboxError

# Reasons for which a record, or a chunk of a file, fails over which a child came to an end.
SANDBOX_REASONS = {
    "crashed": "a C library crashed over it, in a process of its own; the message names the signal",
    "timed_out": "reading it took more CPU time than `max_record_seconds`, or hung",
    "out_of_memory": "reading it took more memory than `max_record_memory`, or than there is",
}

# A loaded machine takes many seconds for one of CPU time; a record that waits for something takes none at all.
_WALL_SECONDS_PER_SECOND = 10


@dataclass(frozen=True)
class Sandbox:
    """Where untrusted bytes are parsed.

    Attributes:
        enabled: whether in child processes; in the worker's own, none of the limits holds.
        seconds: most CPU time that one record, or one step through a file, may take; for a file once more per 256 MiB.
        memory: most bytes that a child may take beyond its libraries, and beyond twice the size of the file it reads.
        verbose: whether what C libraries print is shown.

    Raises:
        ValueError: for a limit that is not positive, or infinite.
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
        if not 0 < self.seconds < math.inf or self.memory <= 0:
            limits = f"{self.seconds} s and {self.memory} bytes"
            raise ValueError(f"the limits of a record are {limits}; give finite ones above 0")

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

    def _place(self, task: str = "") -> "Pool | _Here":
        """Where to run tasks: with a task, in children that serve it alone."""
        if not self.enabled:
            return _Here()
        with _pools_lock:
            key = os.getpid(), self, task
            if key not in _pools:
                _pools[key] = Pool(self, task)
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


# By process, for a fork has none of its parent's children, and by the task that has children of its own.
_pools: dict[tuple[int, Sandbox, str], Pool] = {}
_pools_lock = Lock()
