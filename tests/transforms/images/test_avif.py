"""AVIFs whose first box or whose XMP misleads."""

import numpy as np
import pytest
from support.decoded import notes, pixels
from support.pictures import encode, smooth

PICTURE = smooth(40, 48)


@pytest.mark.parametrize("brands", [b"mif1\0\0\0\0avif", b"mif1\0\0\0\0mif1miafavif", b"msf1\0\0\0\0avif"])
def test_an_avif_of_a_general_brand(brands):
    data = encode(PICTURE, "AVIF")
    whole = int.from_bytes(data[:4], "big")
    # The first box is as long as before, for places in the file follow it.
    named = data[:8] + (brands + b"mif1" * 20)[: whole - 8] + data[whole:]
    np.testing.assert_array_equal(pixels(named), pixels(data))


def test_xmp_does_not_turn_an_avif():
    data = encode(PICTURE, "AVIF", quality=100, subsampling="4:4:4", xmp=b"<x tiff:Orientation='6'/>")
    assert b"Orientation" in data
    assert (pixels(data).shape, notes(data)) == ((40, 48, 3), ())
