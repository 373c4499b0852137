"""GIFs whose colours Pillow guesses."""

import struct

import numpy as np
from support.decoded import pixels, reason
from support.pictures import COLOURS, INDICES, encode


def gif(colours: np.ndarray) -> bytes:
    """A GIF of `INDICES` with these colours."""
    data = encode(INDICES, "GIF")
    table = 3 << (data[10] & 7) + 1
    image = data[data.index(b",", 13 + table) :]
    flags = 0x80 | (len(colours).bit_length() - 2) if len(colours) else 0
    return b"GIF89a" + struct.pack("<HHBBB", 8, 8, flags, 0, 0) + colours.tobytes() + image


def test_numbers_beyond_the_colours_of_a_gif():
    np.testing.assert_array_equal(pixels(gif(COLOURS)), COLOURS[INDICES])
    assert reason(gif(COLOURS[:2])) == "corrupt"
    assert reason(gif(COLOURS[:0])) == "unsupported_mode"
