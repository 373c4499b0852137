"""Python's collection of garbage, kept away from what large libraries make when they are imported."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# Imports of Beam and of TensorFlow make some hundred thousand each.
_MANY_OBJECTS = 50_000


@contextmanager
def made_to_stay() -> Iterator[None]:
    """Collect no garbage in the block, and spare later collections the visit of all that it has made.

    It is for imports and models. Collections take a sixth of the time of an import, and visit everything once more when
    the program ends.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            # Garbage of before stays as well, so this is not done where the block had nothing left to import.
            if gc.get_count()[0] > _MANY_OBJECTS:
                gc.freeze()
            gc.enable()
