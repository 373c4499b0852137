"""Batches: every pair once, one shape and type each, never larger than asked for."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.scoring.batch import Batching, batch_by_shape


@dataclass(frozen=True, eq=False)
class Pair:
    """A pair that knows its number: two empty canvases, which take memory but no time."""

    number: int
    generated: np.ndarray
    target: np.ndarray


def pair(number: int, height: int, width: int, dtype: type = np.uint8) -> Pair:
    return Pair(number, np.empty((height, width, 3), dtype), np.empty((height, width, 3), dtype))


def pairs(sides: list[int]) -> list[Pair]:
    """Square pairs of these sides, numbered in order."""
    return [pair(number, side, side) for number, side in enumerate(sides)]


def numbers(batches) -> list[list[int]]:
    return [[one.number for one in batch] for batch in batches]


ROOMY = {"pairs": 1000, "pixels": 10**9, "pending_bytes": 10**9}


@pytest.mark.parametrize(
    ("sides", "limits", "expected"),
    [
        pytest.param([], {}, [], id="nothing"),
        pytest.param([4], {}, [[0]], id="one pair"),
        pytest.param([4] * 4, {"pairs": 2}, [[0, 1], [2, 3]], id="full groups leave nothing over"),
        pytest.param([4] * 5, {"pairs": 2}, [[0, 1], [2, 3], [4]], id="the rest comes at the end"),
        pytest.param([4] * 3, {"pairs": 1}, [[0], [1], [2]], id="batches of one"),
        pytest.param([4, 5, 4, 5, 4], {}, [[0, 2, 4], [1, 3]], id="sizes apart, in order"),
        pytest.param([4, 5, 5, 4], {"pairs": 2}, [[1, 2], [0, 3]], id="the first full group comes first"),
        pytest.param([4] * 5, {"pixels": 48}, [[0, 1, 2], [3, 4]], id="as many as the pixels allow"),
        pytest.param([4] * 5, {"pixels": 47}, [[0, 1], [2, 3], [4]], id="one pixel less, one pair less"),
        pytest.param([4, 100, 4], {"pixels": 48}, [[1], [0, 2]], id="one huge pair alone"),
        pytest.param([100, 100], {"pixels": 1}, [[0], [1]], id="every pair is huge"),
        # A pair of side 4 has 96 bytes, one of side 5 has 150.
        pytest.param([4, 5, 4, 5], {"pending_bytes": 400}, [[1, 3], [0, 2]], id="too many pending: the largest group"),
        pytest.param([4, 4, 4], {"pending_bytes": 200}, [[0, 1, 2]], id="too many pending of one size"),
        pytest.param([4, 100, 4], {"pending_bytes": 200}, [[1], [0, 2]], id="one pair beyond the pending bytes"),
    ],
)
def test_groups(sides, limits, expected):
    assert numbers(batch_by_shape(pairs(sides), Batching(**(ROOMY | limits)))) == expected


def test_portrait_and_landscape_and_types_are_apart():
    mixed = [pair(0, 4, 6), pair(1, 6, 4), pair(2, 4, 6, np.uint16), pair(3, 4, 6), pair(4, 4, 6, np.uint16)]
    assert numbers(batch_by_shape(mixed, Batching())) == [[0, 3], [1], [2, 4]]


def test_a_full_batch_comes_before_the_next_pair_is_asked_for():
    asked = []

    def source():
        for one in pairs([4] * 6):
            asked.append(one.number)
            yield one

    batches = batch_by_shape(source(), Batching(pairs=2))
    assert asked == []
    next(batches)
    assert asked == [0, 1]


@given(
    sides=st.lists(
        st.tuples(st.integers(1, 4), st.integers(1, 4), st.sampled_from([np.uint8, np.uint16])), max_size=60
    ),
    batching=st.builds(
        Batching, pairs=st.integers(1, 9), pixels=st.integers(1, 60), pending_bytes=st.integers(0, 2000)
    ),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_every_pair_once_and_within_the_limits(sides, batching):
    given_pairs = [pair(number, *shape) for number, shape in enumerate(sides)]
    batches = list(batch_by_shape(given_pairs, batching))
    assert Counter(one.number for batch in batches for one in batch) == Counter(range(len(sides)))
    for batch in batches:
        assert batch
        assert len({(one.generated.shape, one.generated.dtype) for one in batch}) == 1
        assert numbers([batch]) == [sorted(one.number for one in batch)]
        assert len(batch) <= batching.pairs
        height, width = batch[0].generated.shape[:2]
        assert len(batch) == 1 or len(batch) * height * width <= batching.pixels
    assert numbers(batch_by_shape(given_pairs, batching)) == numbers(batches)


@given(sides=st.lists(st.integers(1, 6), max_size=60), pending_bytes=st.integers(0, 1000))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_pending_bytes_are_never_exceeded_by_more_than_one_pair(sides, pending_bytes):
    taken, largest = 0, 0

    def source():
        nonlocal taken, largest
        for one in pairs(sides):
            size = one.generated.nbytes + one.target.nbytes
            taken, largest = taken + size, max(largest, size)
            assert taken <= pending_bytes + largest
            yield one

    for batch in batch_by_shape(source(), Batching(**(ROOMY | {"pending_bytes": pending_bytes}))):
        taken -= sum(one.generated.nbytes + one.target.nbytes for one in batch)
