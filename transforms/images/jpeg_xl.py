"""JPEG XL, read by pillow-jxl-plugin, which the extra `pairloss[jxl]` installs; and the size in its header.

The plugin decodes when it opens a file, so the size must be known before.
"""

from importlib.util import find_spec
from io import BytesIO

from PIL.ImageFile import ImageFile

from transforms.images.boxes import boxes
from transforms.images.decode_error import DecodeError

JPEG_XL_SUPPORTED = find_spec("pillow_jxl") is not None

_CODESTREAM = b"\xff\x0a"
# How many bits a side takes, by the two bits before it (ISO/IEC 18181-1, SizeHeader).
_SIDE_BITS = (9, 13, 18, 30)
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def open_jpeg_xl(data: bytes) -> ImageFile:
    """Opens, and thereby decodes, a JPEG XL. Decoders of many images at once need no threads of their own."""
    from pillow_jxl import JpegXLImagePlugin

    JpegXLImagePlugin.DECODE_THREADS = 0
    return JpegXLImagePlugin.JXLImageFile(BytesIO(data))


def jpeg_xl_size(data: bytes) -> tuple[int, int]:
    """Width and height.

    Raises:
        DecodeError: `truncated`, if the header is not there.
    """
    header = _codestream(data)[2:18]
    if len(header) < 9:
        raise DecodeError("truncated", f"JPEG XL: {len(data)} bytes hold no header.")
    bits = int.from_bytes(header, "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    def take_side(small: int) -> int:
        return (take(5) + 1) * 8 if small else take(_SIDE_BITS[take(2)]) + 1

    small = take(1)
    height = take_side(small)
    ratio = take(3)
    width = take_side(small) if not ratio else height * _RATIOS[ratio - 1][0] // _RATIOS[ratio - 1][1]
    return width, height


def _codestream(data: bytes) -> bytes:
    """The beginning of the codestream, also of one in boxes."""
    if data.startswith(_CODESTREAM):
        return data
    for kind, body in boxes(data):
        if kind == b"jxlc":
            return body
        if kind == b"jxlp":
            return body[4:]
    return b""
