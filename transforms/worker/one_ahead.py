"""An iterator that works ahead: the next item is made in a thread while the last one is in use."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, and the same error at the same place; one more than is in use is in memory.

    Whoever stops early waits for the item that is being made.
    """
    end = object()
    with ThreadPoolExecutor(1, "ahead") as executor:
        following = executor.submit(next, items, end)
        while (item := following.result()) is not end:
            following = executor.submit(next, items, end)
            yield item  # type: ignore[misc]
