"""Duplicate ids are counted, exactly up to a limit and from a sample beyond it, in any order of merging."""

from functools import reduce

import numpy as np
import pytest

from transforms.summary import ids as module
from transforms.summary.ids import Ids


@pytest.fixture(autouse=True)
def limit(monkeypatch):
    monkeypatch.setattr(module, "MOST_IDS", 1000)


def counted(parts: list[list[str]]) -> Ids:
    total = Ids()
    for part in parts:
        total.merge(Ids.of(part))
    return total


def parts_of(distinct: int, times: int, size: int = 50) -> list[list[str]]:
    """Chunks of ids, each of which is there so many times, in different chunks."""
    ids = [f"pair {n}" for n in range(distinct)] * times
    return [ids[start : start + size] for start in range(0, len(ids), size)]


@pytest.mark.parametrize(("distinct", "times"), [(1, 1), (500, 1), (500, 2), (333, 3), (1, 1000)])
def test_exact_up_to_the_limit(distinct, times):
    total = counted(parts_of(distinct, times))
    assert (total.duplicates, total.level) == (distinct * (times - 1), 0)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_an_estimate_beyond_it(times):
    distinct = 20_000
    total = counted(parts_of(distinct, times))
    assert total.kept <= module.MOST_IDS
    assert total.level > 0
    assert total.duplicates == pytest.approx(distinct * (times - 1), rel=0.1)


def test_a_single_part_beyond_it():
    assert Ids.of(f"pair {n}" for n in range(5000)).kept <= module.MOST_IDS


def test_the_order_and_the_grouping_of_merging_do_not_matter():
    parts = [Ids.of(part) for part in parts_of(4000, 2)]

    def merged(ids: list[Ids]) -> Ids:
        return reduce(lambda total, one: (total.merge(one), total)[1], ids, Ids())

    halves = merged([merged(parts[100:]), merged(parts[:100])])
    found = [merged(parts), merged(parts[::-1]), halves]
    assert {(one.level, one.duplicates) for one in found} == {(found[0].level, found[0].duplicates)}
    assert all(np.array_equal(*(np.sort(np.concatenate(one.hashes)) for one in (found[0], other))) for other in found)
    assert sum(len(part.hashes[0]) for part in parts) == 8000
