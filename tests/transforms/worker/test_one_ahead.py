"""Iterators that work ahead."""

from collections.abc import Iterator
from threading import Event

import pytest

from transforms.worker.one_ahead import OneAhead


class Items:
    """0 to 2, and then perhaps an error; tells which have been asked for."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked = [Event() for _ in range(4)]
        self._error = error

    def __iter__(self) -> Iterator[int]:
        for number, asked in enumerate(self.asked):
            asked.set()
            if number < 3:
                yield number
            elif self._error:
                raise self._error


def test_the_next_item_is_made_while_one_is_in_use():
    items = Items()
    ahead = OneAhead(iter(items))
    assert next(ahead) == 0
    assert items.asked[1].wait(60)
    assert not items.asked[2].is_set()
    assert list(ahead) == [1, 2]


def test_an_error_comes_in_its_place():
    ahead = OneAhead(iter(Items(OSError("gone"))))
    assert [next(ahead) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="gone"):
        next(ahead)


def test_the_first_item_is_made_before_anyone_asks():
    items = Items()
    ahead = OneAhead(iter(items))
    assert items.asked[0].wait(60)
    assert not items.asked[1].is_set()
    ahead.close()


def test_nothing():
    assert list(OneAhead(iter(()))) == []


def test_stopping_early_ends_its_thread():
    items = Items()
    ahead = OneAhead(iter(items))
    next(ahead)
    ahead.close()
    assert not items.asked[2].is_set()
