"""The collection of garbage leaves alone what imports make."""

import gc

import pytest

from transforms.worker.garbage import made_to_stay


@pytest.fixture(autouse=True)
def as_before():
    gc.collect()
    yield
    gc.enable()
    gc.unfreeze()


@pytest.mark.parametrize(("objects", "spared"), [(100_000, True), (100, False)])
def test_many_objects_are_spared(objects, spared):
    before = gc.get_freeze_count()
    with made_to_stay():
        made = [[] for _ in range(objects)]
        assert not gc.isenabled()
    assert gc.isenabled()
    assert (gc.get_freeze_count() >= before + len(made)) == spared


def test_a_block_within_another_leaves_the_end_to_it():
    with made_to_stay():
        with made_to_stay():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_collection_that_was_off_stays_off():
    gc.disable()
    with pytest.raises(ImportError), made_to_stay():
        raise ImportError
    assert not gc.isenabled()
