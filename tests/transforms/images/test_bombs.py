"""Small pictures behind a million parts that somebody has to walk."""

import struct
import zlib

import pytest
from support.pictures import encode, noise

from transforms.images.decode import DecodeError, DecodePolicy, decode_image


def run_lengths(body: bytes) -> bytes:
    """A BMP of 8x8 with run lengths of 8 bits."""
    head = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 8, 1, len(body), 0, 0, 1, 0) + bytes(4)
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(body), 0, 0, 14 + len(head)) + head + body


POLICY = DecodePolicy()
JPEG = encode(noise(0, 8, 8), "JPEG")
GIF = encode(noise(0, 8, 8), "GIF")
PNG = encode(noise(0, 8, 8))
JPEG_2000 = encode(noise(0, 8, 8), "JPEG2000")
WALKS = {
    "GIF, comments": GIF[:-1] + b"!\xfe\1a\0" * 1_000_000 + b";",
    "GIF, blocks of a comment": GIF[:-1] + b"!\xfe" + b"\1a" * 1_100_000 + b"\0;",
    "PNG, chunks": PNG[:33]
    + (struct.pack(">I", 0) + b"teSt" + struct.pack(">I", zlib.crc32(b"teSt"))) * 100_000
    + PNG[33:],
    "BMP, run lengths": run_lengths(b"\0\2\0\0" * 20_000),
    "JPEG, padding": JPEG[:2] + b"\xff" * 70_000 + JPEG[2:],
    "JPEG, padding behind a segment": JPEG[:20] + b"\xff" * 70_000 + JPEG[20:],
    "JPEG 2000, boxes": JPEG_2000[:12] + b"\0\0\0\x08free" * 11_000 + JPEG_2000[12:],
    "PNM, white space": b"P6" + b" " * 70_000 + b"4 4 255 " + bytes(48),
    "PNM, comments": b"P3\n4 4 255\n" + b"#\n" * 11_000 + b"1 " * 48,
}


@pytest.mark.parametrize("name", WALKS)
def test_what_would_be_walked_for_minutes_is_refused_at_once(name):
    with pytest.raises(DecodeError) as caught:
        decode_image(WALKS[name], POLICY)
    assert caught.value.reason == "corrupt"


@pytest.mark.parametrize(
    "data",
    [
        JPEG + b"\xff" * 100_000,
        JPEG[:20] + b"\xff\xe9\xff\xfe" + b"\xff" * 65_532 + JPEG[20:],
        b"P6\n" + b"# a\n" * 100 + b"4 4 255 " + bytes(48),
        run_lengths(b"\x08\0\0\0" * 8 + b"\0\1"),
        GIF[:-1] + b"!\xfe" + b"\1a" * 1000 + b"\0;",
    ],
    ids=["0xff behind a JPEG", "0xff in a JPEG's segment", "PNM", "BMP", "GIF"],
)
def test_unusual_but_sound_files_are_not(data):
    decode_image(data, POLICY)
