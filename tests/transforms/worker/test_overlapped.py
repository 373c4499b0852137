from functools import partial
from threading import Barrier

import pytest

from transforms.worker.overlapped import Overlapped


def test_tasks_run_at_once_and_results_keep_their_order():
    """Each task ends only when the other one runs as well."""
    barrier = Barrier(2, timeout=60)

    def task(number: int) -> int:
        barrier.wait()
        return number

    overlapped: Overlapped[int] = Overlapped(2)
    given = [list(overlapped.begin(partial(task, number))) for number in range(4)]
    assert given == [[], [], [0], [1]]
    assert list(overlapped.finish()) == [2, 3]
    assert list(overlapped.finish()) == []


def test_an_error_comes_in_its_place():
    def fail() -> int:
        raise OSError("gone")

    overlapped: Overlapped[int] = Overlapped(4)
    for task in (lambda: 1, fail, lambda: 3):
        assert list(overlapped.begin(task)) == []
    results = overlapped.finish()
    assert next(results) == 1
    with pytest.raises(OSError, match="gone"):
        next(results)
    overlapped.forget()
    assert list(overlapped.finish()) == []
