"""Image files of layouts that Pillow does not write."""

import struct
import zlib

import numpy as np


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def tiff(samples: np.ndarray, tags: dict[int, tuple[int, tuple[int, ...]]], order: str = "<") -> bytes:
    """An uncompressed TIFF of one strip written by hand; tags: number -> (type 3 SHORT or 4 LONG, values)."""
    pixels = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    height, width = samples.shape[:2]
    tags = {256: (3, (width,)), 257: (3, (height,)), 259: (3, (1,)), 273: (4, (8,)), 278: (3, (height,)),
            279: (4, (len(pixels),)), **tags}  # fmt: skip
    extra_at = 8 + len(pixels) + 2 + 12 * len(tags) + 4
    entries, extra = b"", b""
    for number, (kind, values) in sorted(tags.items()):
        value = struct.pack(f"{order}{len(values)}{'HI'[kind - 3]}", *values)
        if len(value) > 4:
            place, extra = struct.pack(f"{order}I", extra_at + len(extra)), extra + value
        else:
            place = value.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHI", number, kind, len(values)) + place
    magic = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
    return magic + struct.pack(f"{order}I", 8 + len(pixels)) + pixels + directory + extra
