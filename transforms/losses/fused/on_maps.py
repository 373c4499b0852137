"""Kernels in two steps, so that losses on the same maps of a pair compute them once."""

from collections.abc import Callable, Iterable
from functools import cache
from typing import NamedTuple

import numpy as np

# Takes one pair [H, W, 3]: uint8 or uint16 of full range, or float32 in [0, 1].
Kernel = Callable[[np.ndarray, np.ndarray], float]


class OnMaps(NamedTuple):
    """A kernel that reduces maps of a pair.

    Attributes:
        maps: `(generated, target) -> maps`; losses share it by naming the same function.
        value: of the maps, which it does not change.
    """

    maps: Callable[[np.ndarray, np.ndarray], np.ndarray]
    value: Callable[[np.ndarray], float]

    def __call__(self, generated: np.ndarray, target: np.ndarray) -> float:
        """The loss of one pair."""
        return self.value(self.maps(generated, target))


def values_of_pair(kernels: Iterable[Kernel], generated: np.ndarray, target: np.ndarray) -> list[float]:
    """The values of all kernels for one pair; maps that several of them reduce are computed once."""
    shared = cache(lambda maps: maps(generated, target))
    return [
        kernel.value(shared(kernel.maps)) if isinstance(kernel, OnMaps) else kernel(generated, target)
        for kernel in kernels
    ]
