"""BMP: refused where its compressed data is far longer than any picture's, which Pillow would walk byte by byte."""

import struct
from io import BytesIO

from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile

from transforms.images.decode_error import DecodeError

_RLE8, _RLE4 = 1, 2
# Layout: bitmap file header of 14 bytes, then BITMAPINFOHEADER.
_DATA_OFFSET, _WIDTH, _HEIGHT, _COMPRESSION = 10, 18, 22, 30
# A pixel takes two bytes at most, a jump between pixels four.
_MOST_BYTES_PER_PIXEL, _SLACK = 4, 1 << 16


def open_bmp(data: bytes) -> ImageFile:
    """Opens a BMP.

    Raises:
        DecodeError: `corrupt`, for run lengths that cannot all be pixels.
    """
    if len(data) >= _COMPRESSION + 4 and struct.unpack_from("<I", data, _COMPRESSION)[0] in (_RLE8, _RLE4):
        (offset,) = struct.unpack_from("<I", data, _DATA_OFFSET)
        width, height = (abs(side) for side in struct.unpack_from("<ii", data, _WIDTH))
        if len(data) - offset > _MOST_BYTES_PER_PIXEL * (width + 1) * height + _SLACK:
            raise DecodeError("corrupt", f"BMP: {len(data)} bytes of run lengths for {width}x{height} pixels.")
    return BmpImageFile(BytesIO(data))
