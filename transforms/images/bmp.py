"""BMP: run lengths of a size that no picture has, runs that Pillow misreads, and colours that Pillow leaves out."""

import struct
from io import BytesIO

from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile

from transforms.images.decode_error import DecodeError

_RLE8, _RLE4 = 1, 2
# Layout: bitmap file header of 14 bytes, then BITMAPINFOHEADER, which BITMAPV4HEADER and BITMAPV5HEADER extend.
_DATA_OFFSET, _HEADER, _WIDTH, _HEIGHT, _COMPRESSION = 10, 14, 18, 22, 30
_V4, _V5 = 108, 124
_COLOUR_SPACE, _ENDPOINTS, _PROFILE = 70, 74, 126
_CALIBRATED, _EMBEDDED, _LINKED = 0, 0x4D424544, 0x4C494E4B
# A pixel takes two bytes at most, a jump between pixels four.
_MOST_BYTES_PER_PIXEL, _SLACK = 4, 1 << 16


def open_bmp(data: bytes) -> ImageFile:
    """Opens a BMP, with its profile.

    Raises:
        DecodeError: `corrupt`, for run lengths that cannot all be pixels.
    """
    profile = _profile(data)
    compression = _number(data, _COMPRESSION)
    if compression in (_RLE8, _RLE4) and len(data) >= _COMPRESSION + 4:
        offset = _number(data, _DATA_OFFSET)
        width, height = (abs(side) for side in struct.unpack_from("<ii", data, _WIDTH))
        if len(data) - offset > _MOST_BYTES_PER_PIXEL * (width + 1) * height + _SLACK:
            raise DecodeError("corrupt", f"BMP: {len(data)} bytes of run lengths for {width}x{height} pixels.")
        if compression == _RLE4:
            data = data[:offset] + _without_literals(data[offset:])
    image = BmpImageFile(BytesIO(data))
    if profile:
        image.info["icc_profile"] = profile
    return image


def bmp_notes(_: ImageFile, data: bytes) -> tuple[str, ...]:
    """`color_space` if the colours are given by primaries and tone curves, or by a profile in another file."""
    if _number(data, _HEADER) < _V4:
        return ()
    space = _number(data, _COLOUR_SPACE)
    # Many writers leave the space at zero, and its numbers as well.
    calibrated = space == _CALIBRATED and any(data[_ENDPOINTS : _ENDPOINTS + 48])
    return ("color_space",) if calibrated or space == _LINKED else ()


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _profile(data: bytes) -> bytes:
    """The profile inside the file; empty: there is none."""
    if _number(data, _HEADER) < _V5 or _number(data, _COLOUR_SPACE) != _EMBEDDED:
        return b""
    start = _HEADER + _number(data, _PROFILE)
    # Without a byte of it there is a profile all the same, which cannot be read.
    return data[start : start + _number(data, _PROFILE + 4)] or b"lost"


def _without_literals(stream: bytes) -> bytes:
    """RLE4 data with runs of two pixels for literal pixels, of which Pillow loses the last where they are odd."""
    plain, at = bytearray(), 0
    while at + 2 <= len(stream):
        count, value = stream[at : at + 2]
        at += 2
        if count == 0 and value > 2:
            pairs = stream[at : at + (value + 1) // 2]
            for pair in pairs:
                plain += bytes((2, pair))
            if value % 2 and pairs:
                plain[-2] = 1
            at += (len(pairs) + 1) // 2 * 2
        else:
            size = 2 if (count, value) == (0, 2) else 0
            plain += stream[at - 2 : at + size]
            at += size
    return bytes(plain)
