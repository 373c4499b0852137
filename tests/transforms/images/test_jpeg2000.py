"""JPEG 2000s that lack tiles, or whose channels Pillow misreads in silence."""

import struct

import numpy as np
import pytest
from support.decoded import pixels, reason
from support.pictures import encode, smooth

from transforms.images.decode import DecodeError, DecodePolicy, decode_image

PICTURE = smooth(40, 48)


def codestream(samples: np.ndarray, **options: object) -> bytes:
    data = encode(samples, "JPEG2000", no_jp2=True, **options)
    assert data.startswith(b"\xff\x4f\xff\x51")
    return data


def with_depth(data: bytes, depth: int) -> bytes:
    """The codestream with another depth, bits less one, of every component."""
    changed = bytearray(data)
    for n in range(int.from_bytes(data[40:42], "big")):
        changed[42 + 3 * n] = depth
    return bytes(changed)


@pytest.mark.parametrize("first", [0, 3, 8])
def test_a_missing_tile_of_a_jpeg_2000_is_truncated(first):
    data = codestream(PICTURE, tile_size=(16, 16))
    tiles = [at for at in range(len(data)) if data[at : at + 4] == b"\xff\x90\0\x0a"]
    assert len(tiles) == 9
    np.testing.assert_array_equal(pixels(data), PICTURE)
    end = tiles[first + 1] if first < 8 else len(data) - 2
    assert reason(data[: tiles[first]] + data[end:]) == "truncated"


@pytest.mark.parametrize(
    ("depth", "message"),
    [*((depth, "convert it to a PNG or TIFF of 16 bits") for depth in (8, 9, 11, 15)), (0x87, "signed samples")],
)
def test_colours_of_a_jpeg_2000_whose_white_would_be_black_are_refused(depth, message):
    with pytest.raises(DecodeError, match=message) as failure:
        decode_image(with_depth(codestream(PICTURE), depth), DecodePolicy())
    assert failure.value.reason == "unsupported_mode"


def boxed(data: bytes, *channels: tuple[int, int, int]) -> bytes:
    """A JPEG 2000 whose channels have these numbers, kinds and colours."""

    def box(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body) + 8) + kind + body

    header = box(b"ihdr", struct.pack(">IIHBBBB", 40, 48, len(channels), 7, 7, 0, 0))
    header += box(b"colr", struct.pack(">BBBI", 1, 0, 0, 16))
    header += box(b"cdef", struct.pack(">H", len(channels)) + b"".join(struct.pack(">HHH", *c) for c in channels))
    start = b"\0\0\0\x0cjP  \r\n\x87\n" + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return start + box(b"jp2h", header) + box(b"jp2c", data)


RGB = ((0, 0, 1), (1, 0, 2), (2, 0, 3))
CLEAR = codestream(np.dstack([PICTURE, np.zeros((40, 48), np.uint8)]))


def test_channels_of_a_jpeg_2000():
    np.testing.assert_array_equal(pixels(boxed(codestream(PICTURE), *RGB)), PICTURE)
    assert (pixels(boxed(CLEAR, *RGB, (3, 1, 0))) == 255).all()
    for last in ((3, 2, 0), (3, 65535, 65535)):
        assert reason(boxed(CLEAR, *RGB, last)) == "unsupported_mode"
    assert reason(boxed(codestream(PICTURE), (0, 0, 3), (1, 0, 2), (2, 0, 1))) == "unsupported_mode"
