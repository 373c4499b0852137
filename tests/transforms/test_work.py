"""Records of work add up, whatever the order, and the time of machines is counted once."""

import json
from functools import reduce
from itertools import permutations

import pytest

from transforms.work import MOST_NAMED, STAGES, Work

CHUNKS = (
    Work(2, {"reading": 0.5, "decoding": 2.0}, 10, 500, {"m/1": (1.0, 3.0)}, {"a": 0.25}, {"a": 64}),
    Work(3, {"reading": 0.25, "network": 1.0}, 20, 300, {"m/1": (4.0, 9.0)}, {"b": 0.5, "c": 0.125}, {"b": 16}),
    Work(1, {"writing": 0.125}, 0, 400, {"n/1": (2.0, 3.0)}),
)


@pytest.mark.parametrize("order", permutations(range(3)))
def test_adds_up(order):
    total = reduce(Work.__add__, (CHUNKS[number] for number in order), Work())
    assert total == Work(
        6,
        {"reading": 0.75, "decoding": 2.0, "network": 1.0, "writing": 0.125},
        30,
        500,
        {"m/1": (1.0, 9.0), "n/1": (2.0, 3.0)},
        {"b": 0.5, "a": 0.25, "c": 0.125},
        {"a": 64, "b": 16},
    )
    assert list(total.slowest) == ["b", "a", "c"]
    assert total.busy.keys() == total.seconds.keys() - {"reading", "decoding"}


def test_only_the_first_pairs_are_named():
    many = {f"{number:02}": number for number in range(20)}
    total = Work(largest=many) + Work(largest={"zz": 100, "10": 10})
    assert list(total.largest.items()) == [("zz", 100), ("19", 19), ("18", 18), ("17", 17), ("16", 16)][:MOST_NAMED]


@pytest.mark.parametrize(
    ("processes", "seconds", "machines"),
    [
        ({}, 0.0, 0),
        ({"m/1": (1.0, 4.0), "m/2": (2.0, 3.0)}, 3.0, 1),
        ({"m/1": (1.0, 4.0), "m/2": (3.0, 6.0), "m/3": (6.0, 7.0)}, 6.0, 1),
        # A launcher was killed, and the run was resumed a day later.
        ({"m/1": (1.0, 4.0), "m/2": (86400.0, 86402.0)}, 5.0, 1),
        ({"m/1": (1.0, 4.0), "n/1": (1.0, 4.0)}, 6.0, 2),
    ],
)
def test_machines(processes, seconds, machines):
    work = Work(processes=processes)
    assert (work.machine_seconds, work.machines) == (seconds, machines)


def test_json():
    total = sum(CHUNKS, Work())
    written = json.loads(json.dumps(total.to_json()))
    again = Work.from_json({**written, "of_a_later_version": 1})
    assert again == total


def test_every_stage_has_a_meaning():
    assert all(meaning and not meaning.endswith(".") for meaning in STAGES.values())
