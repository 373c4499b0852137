"""PNMs of other systems, and samples beyond the maximum."""

import struct

import numpy as np
import pytest
from support.decoded import pixels, reason


@pytest.mark.parametrize(
    ("header", "samples", "expected"),
    [
        (b"P6\r\n2 1\r\n255\r\n", bytes(range(1, 7)), [[[1, 2, 3], [4, 5, 6]]]),
        (b"P5\r\n1 2\r\n65535\r\n", b"\1\2\3\4", [[[258] * 3], [[772] * 3]]),
        (b"P4\r\n9 1\r\n", b"\xaa\x80", [[[0] * 3, [255] * 3] * 4 + [[0] * 3]]),
        (b"P5\n2 1\n255\r", b"\n\2", [[[10] * 3, [2] * 3]]),
    ],
)
def test_a_pnm_with_the_line_ends_of_windows(header, samples, expected):
    np.testing.assert_array_equal(pixels(header + samples), expected)


@pytest.mark.parametrize("data", [b"P5\n2 1\n100\n\x64\x65", b"P6\n1 1\n1000\n" + struct.pack(">HHH", 5, 1001, 0)])
def test_a_sample_beyond_the_maximum_of_a_pnm(data):
    assert reason(data) == "corrupt"
