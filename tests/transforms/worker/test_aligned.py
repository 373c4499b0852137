"""Aligned arrays."""

import numpy as np
import pytest

from transforms.worker.aligned import aligned_empty


@pytest.mark.parametrize(("shape", "dtype"), [((3, 5), np.float32), ((7,), np.uint8), ((2, 1, 4), np.uint16)])
def test_arrays_start_at_multiples_of_64_and_can_be_written(shape, dtype):
    arrays = [aligned_empty(shape, dtype) for _ in range(5)]
    for array in arrays:
        assert (array.shape, array.dtype) == (shape, dtype)
        assert array.ctypes.data % 64 == 0
        assert array.flags.c_contiguous
        array[:] = 1
        np.testing.assert_array_equal(array, np.ones(shape, dtype))
