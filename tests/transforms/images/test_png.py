"""PNGs that Pillow misreads in silence: the right pixels, or a failure with the right reason."""

import struct
import zlib

import numpy as np
import pytest
from support.decoded import notes, pixels, reason
from support.image_files import chunk
from support.pictures import COLOURS, INDICES, smooth

PICTURE = smooth(40, 48)


def png(
    chunks: dict[bytes, bytes], colour: int = 2, samples: np.ndarray = PICTURE, methods: bytes = b"\0\0\0"
) -> bytes:
    """A PNG of 8 bits with chunks before its pixels."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    header = struct.pack(">IIBB", width, height, 8, colour) + methods
    before = b"".join(chunk(kind, body) for kind, body in chunks.items())
    end = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + end


def test_no_damaged_byte_of_a_png_is_missed():
    """A flipped bit can leave a stream that inflates to as many bytes; the sum of the chunk tells."""
    data = png({})
    start = data.index(b"IDAT") + 4
    for at in range(start, len(data) - 16, 5):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        assert reason(bytes(damaged)) == "corrupt"


def test_a_wrong_sum_over_the_pixels_of_a_png_is_damage():
    data = png({})
    at = data.index(b"IEND") - 8
    assert reason(data[:at] + bytes(4) + data[at + 4 :]) == "corrupt"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png({b"PLTE": COLOURS[:3].tobytes()}, 3, INDICES), "corrupt"),
        (png({}, 3, INDICES), "corrupt"),
        (png({b"CgBI": b"\x50\0\x20\2"}), "unsupported_mode"),
        (png({}, methods=b"\0\x40\0"), "unsupported_mode"),
        (png({b"gAMA": b"\0"}), "corrupt"),
        (png({b"sRGB": b""}), "corrupt"),
        (png({b"tRNS": bytes(5)}), "corrupt"),
        (png({})[:8] + chunk(b"tEXt", b"a\0b") + png({})[8:], "corrupt"),
    ],
    ids=["index beyond the palette", "no palette", "unknown critical chunk", "filter of MNG", "short gAMA",
         "short sRGB", "short tRNS", "late header"],
)  # fmt: skip
def test_a_png_that_pillow_would_guess_at_is_refused(data, expected):
    assert reason(data) == expected


@pytest.mark.parametrize(
    ("codes", "expected"),
    [((1, 13, 0, 1), ()), ((1, 13, 0, 0), ("color_space",)), ((1, 13, 1, 1), ("color_space",))],
    ids=["full range", "narrow range", "YCbCr"],
)
def test_the_range_in_cicp(codes, expected):
    assert notes(png({b"cICP": bytes(codes)})) == expected


@pytest.mark.parametrize("late", [(b"tRNS", bytes(6)), (b"gAMA", struct.pack(">I", 100_000)), (b"iCCP", b"a\0\0")])
def test_chunks_behind_the_pixels_of_a_png_mean_nothing(late):
    picture = PICTURE.copy()
    picture[3] = 0
    data = png({}, samples=picture)
    end = data.index(b"IEND") - 4
    np.testing.assert_array_equal(pixels(data[:end] + chunk(*late) + data[end:]), picture)
    assert notes(data[:end] + chunk(*late) + data[end:]) == ()


def test_what_follows_the_end_of_a_png_is_not_read():
    np.testing.assert_array_equal(pixels(png({}) + chunk(b"ABCD", b"")), PICTURE)
