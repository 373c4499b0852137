"""BMPs, and a TGA, that Pillow misreads in silence."""

import struct

import numpy as np
import pytest
from PIL import ImageCms
from support.decoded import notes, pixels, reason
from support.pictures import COLOURS, INDICES, smooth

PICTURE = smooth(40, 48)
BGRX = b"".join(bytes((*colour[::-1], 0)) for colour in COLOURS.tolist())


def bmp(body: bytes, side: int, bits: int, compression: int = 0, table: bytes = b"", more: bytes = b"") -> bytes:
    """A BMP of side x side pixels; `more` lengthens the header."""
    fields = (40 + len(more), side, side, 1, bits, compression, len(body), 0, 0, len(table) // 4, 0)
    header = struct.pack("<IiiHHIIiiII", *fields) + more
    offset = 14 + len(header) + len(table)
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + header + table + body


def test_an_index_beyond_the_palette_of_a_bmp():
    flipped = INDICES[::-1].tobytes()
    np.testing.assert_array_equal(pixels(bmp(flipped, 8, 8, table=BGRX)), COLOURS[INDICES])
    assert reason(bmp(flipped, 8, 8, table=BGRX[:12])) == "corrupt"


def test_odd_literal_runs_of_a_bmp():
    """Pillow loses the last pixel of each, and all that follow are shifted."""
    row = b"\0\3\x12\x30" + b"\0\5\x12\x31\x20\0" + b"\0\0"
    expected = COLOURS[np.array([[1, 2, 3, 1, 2, 3, 1, 2]] * 8)]
    np.testing.assert_array_equal(pixels(bmp(row * 8 + b"\0\1", 8, 4, 2, BGRX)), expected)


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
BODY = PICTURE[:40, :40][::-1, :, ::-1].tobytes()


def bmp_of_space(space: bytes, numbers: bytes = bytes(48), profile: bytes = b"") -> bytes:
    place = struct.pack("<IIII", 4, 124 + len(BODY), len(profile), 0)
    return bmp(BODY, 40, 24, more=bytes(16) + space + numbers + place) + profile


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (bmp_of_space(b"BGRs"), ()),
        (bmp_of_space(bytes(4)), ()),
        (bmp_of_space(bytes(4), bytes([1] * 48)), ("color_space",)),
        (bmp_of_space(b"KNIL", profile=b"C:\\a.icc\0"), ("color_space",)),
        (bmp_of_space(b"DEBM", profile=SRGB), ()),
        (bmp_of_space(b"DEBM", profile=SRGB[:200]), ("icc_profile",)),
        (bmp_of_space(b"DEBM"), ("icc_profile",)),
    ],
    ids=["sRGB", "zeros", "calibrated", "linked", "embedded sRGB", "embedded, damaged", "embedded, not there"],
)
def test_colours_of_a_bmp_leave_a_note(data, expected):
    np.testing.assert_array_equal(pixels(data), PICTURE[:, :40])
    assert notes(data) == expected


def test_a_colour_map_of_a_tga_that_pillow_does_not_read_is_refused_as_such():
    header = struct.pack("<BBBHHBHHHHBB", 0, 1, 1, 0, 4, 32, 0, 0, 8, 8, 8, 0)
    assert reason(header + BGRX + INDICES.tobytes()) == "unsupported_mode"
