"""JPEG XL, read by pillow-jxl-plugin, which the extra `pairloss[jxl]` installs; and what its header says.

The plugin decodes when it opens a file, so the size must be known before.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO

from PIL.ImageFile import ImageFile

from transforms.images.boxes import boxes
from transforms.images.decode_error import DecodeError

JPEG_XL_SUPPORTED = find_spec("pillow_jxl") is not None

_CODESTREAM = b"\xff\x0a"
_HEADER_BYTES, _LEAST_BYTES = 64, 9
# How many bits a side takes, by the two bits before it.
_SIDE_BITS = (9, 13, 18, 30)
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def open_jpeg_xl(data: bytes) -> ImageFile:
    """Opens, and thereby decodes, a JPEG XL. Decoders of many images at once need no threads of their own.

    Raises:
        DecodeError: `unsupported_mode`, for an animation, of which the plugin decodes the last frame.
    """
    if _header(data).animated:
        raise DecodeError("unsupported_mode", "JPEG XL: an animation, of which the plugin decodes the last frame.")
    from pillow_jxl import JpegXLImagePlugin

    JpegXLImagePlugin.DECODE_THREADS = 0
    image = JpegXLImagePlugin.JXLImageFile(BytesIO(data))
    if not image.jpeg:
        # The codestream says which way up, and the decoder has turned it; only a JPEG made whole again has to be.
        image.info.pop("exif", None)
    return image


def jpeg_xl_size(data: bytes) -> tuple[int, int]:
    """Width and height.

    Raises:
        DecodeError: `truncated`, if the header is not there.
    """
    header = _header(data)
    return header.width, header.height


def jpeg_xl_bits(_: ImageFile, data: bytes) -> int:
    """Bits per channel, from the header."""
    return _header(data).bits


@dataclass(frozen=True)
class _Header:
    width: int
    height: int
    bits: int
    animated: bool


def _header(data: bytes) -> _Header:
    """The beginning of the codestream: ISO/IEC 18181-1, SizeHeader and ImageMetadata.

    Raises:
        DecodeError: `truncated`, if it is not there.
    """
    stream = _codestream(data)[2 : 2 + _HEADER_BYTES]
    if len(stream) < _LEAST_BYTES:
        raise DecodeError("truncated", f"JPEG XL: {len(data)} bytes hold no header.")
    rest = int.from_bytes(stream, "little")

    def take(count: int) -> int:
        nonlocal rest
        value, rest = rest & ((1 << count) - 1), rest >> count
        return value

    def take_side(in_eights: int) -> int:
        if in_eights:
            return (take(5) + 1) * 8
        return take(_SIDE_BITS[take(2)]) + 1

    def take_size() -> tuple[int, int]:
        in_eights = take(1)
        height = take_side(in_eights)
        ratio = take(3)
        if ratio:
            return height * _RATIOS[ratio - 1][0] // _RATIOS[ratio - 1][1], height
        return take_side(in_eights), height

    size = take_size()
    if take(1):  # everything is as usual
        return _Header(*size, bits=8, animated=False)
    if take(1):
        take(3)  # which way up
        if take(1):
            take_size()  # on the screen
        if take(1):
            # A preview, which no encoder writes, has a header of its own in the way.
            raise DecodeError("unsupported_mode", "JPEG XL: a picture with a preview.")
        if take(1):
            return _Header(*size, bits=8, animated=True)
    depths = (32, 16, 24) if take(1) else (8, 10, 12)
    choice = take(2)
    return _Header(*size, bits=depths[choice] if choice < 3 else take(6) + 1, animated=False)


def _codestream(data: bytes) -> bytes:
    """The beginning of the codestream, also of one in boxes, of which the first may hold hardly more than its size."""
    if data.startswith(_CODESTREAM):
        return data
    parts = b""
    for kind, body in boxes(data):
        if kind == b"jxlc":
            return body
        if kind == b"jxlp":
            parts += body[4 : 4 + _HEADER_BYTES]
            if len(parts) >= _HEADER_BYTES:
                break
    return parts
