"""Arrays that start where vector registers load from: TensorFlow takes their memory over instead of copying it."""

import math

import numpy as np
from numpy.typing import DTypeLike

# In bytes, as TensorFlow aligns its own tensors; what the widest registers want.
_ALIGNMENT = 64


def aligned_empty(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """An unset array whose first byte is at a multiple of 64."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)
