"""SIGTERM as Ctrl-C, and the handlers of signals that a caller has set."""

import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest

from pipeline.launch.interruptions import noted_interruptions, termination_as_interruption

NUMBERS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers():
    """Python's handlers of both signals, which are put back."""
    before = [signal.signal(signal.SIGINT, signal.default_int_handler), signal.signal(signal.SIGTERM, signal.SIG_DFL)]
    yield
    for number, handler in zip(NUMBERS, before, strict=True):
        signal.signal(number, handler)


def current() -> list[object]:
    return [signal.getsignal(number) for number in NUMBERS]


@pytest.mark.parametrize("number", NUMBERS)
def test_an_interruption_is_noted(number):
    before = current()
    with termination_as_interruption():
        with pytest.raises(KeyboardInterrupt), noted_interruptions() as interrupted:
            signal.raise_signal(number)
        assert interrupted()
        # It is still Ctrl-C where nobody notes it.
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert current() == before


def test_the_handlers_of_a_caller_stay():
    came = []
    for number in NUMBERS:
        signal.signal(number, lambda number, _: came.append(number))
    before = current()
    with termination_as_interruption(), noted_interruptions() as interrupted:
        for number in NUMBERS:
            signal.raise_signal(number)
        assert current() == before
    assert came == list(NUMBERS)
    assert not interrupted()


@pytest.mark.parametrize("context", [termination_as_interruption, noted_interruptions])
def test_other_threads_take_no_signals_over(context):
    def enter(entered: AbstractContextManager[object]) -> list[object]:
        with entered:
            return current()

    before = current()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(enter, context()).result() == before
