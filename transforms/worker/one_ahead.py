"""An iterator that works ahead: the next item is made in a thread while the last one is in use."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar, cast

T = TypeVar("T")

_END = object()


class OneAhead(Iterator[T], Generic[T]):
    """The same items, and the same error at the same place; one more than is in use is in memory.

    The first is made from now on.
    """

    def __init__(self, items: Iterator[T]):
        self._items = items
        self._executor = ThreadPoolExecutor(1, "ahead")
        self._following = self._begin()

    def __next__(self) -> T:
        item = _END
        try:
            item = self._following.result()
        finally:
            if item is _END:
                self.close()
        if item is _END:
            raise StopIteration
        self._following = self._begin()
        return cast(T, item)

    def close(self) -> None:
        """Make no more, once the item that is being made is there."""
        self._executor.shutdown(cancel_futures=True)

    def _begin(self) -> Future[object]:
        return self._executor.submit(next, self._items, _END)
