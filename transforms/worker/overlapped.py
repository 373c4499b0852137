"""Tasks that mostly wait, for a disk or a store: several at once in threads, their results in order."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Overlapped(Generic[T]):
    """Begins tasks, and gives their results when many are under way or when they are asked for.

    Args:
        threads: most tasks at once.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "overlapped")
        self._begun: deque[Future[T]] = deque()

    def begin(self, task: Callable[[], T]) -> Iterator[T]:
        """Begin a task. Yields the result of the oldest one if there are more than `threads`, or raises its error."""
        self._begun.append(self._pool.submit(task))
        if len(self._begun) > self._threads:
            yield self._begun.popleft().result()

    def finish(self) -> Iterator[T]:
        """Yield the results of all tasks that are left, or raise the first error."""
        while self._begun:
            yield self._begun.popleft().result()

    def forget(self) -> None:
        """Drop the tasks that are left; those that have begun run to their end."""
        while self._begun:
            self._begun.popleft().cancel()
