"""AVIF and JPEG 2000: read from the boxes around their data (ISO/IEC 14496-12) what Pillow does not report."""

import struct
from collections.abc import Callable, Iterator
from io import BytesIO

import numpy as np
from PIL import AvifImagePlugin, Image
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

from transforms.images.png import SRGB_CODES
from transforms.images.sixteen_bits import load_samples, scaled

# Decoders of many images at once need no threads of their own.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

_CODESTREAM = b"\xff\x4f\xff\x51"
_ICC_METHODS = frozenset({2, 3})
# CMYK, sRGB, gray and the YCbCr of sRGB, of which Pillow makes RGB.
_KNOWN_SPACES = frozenset({12, 16, 17, 18})


def avif_bits(_: ImageFile, data: bytes) -> int:
    """Most bits per channel of the images in an AVIF (AV1 in ISOBMFF, 2.3.3)."""
    flags = [body[2] for kind, body in _avif_properties(data) if kind == b"av1C"]
    return max((12 if flag & 0x20 else 10) if flag & 0x40 else 8 for flag in flags or [0])


def avif_notes(_: ImageFile, data: bytes) -> tuple[str, ...]:
    """`color_space` if an AVIF's colours are not sRGB's (a profile is judged elsewhere)."""
    primaries, transfers = SRGB_CODES
    for kind, body in _avif_properties(data):
        if kind == b"colr" and body[:4] == b"nclx":
            codes = struct.unpack_from(">HH", body, 4)
            return () if codes[0] in primaries and codes[1] in transfers else ("color_space",)
    return ()


def open_jpeg2000(data: bytes) -> ImageFile:
    """Opens a JPEG 2000, with its profile."""
    image = Jpeg2KImageFile(BytesIO(data))
    for method, body in _jpeg2000_colours(data):
        if method in _ICC_METHODS:
            image.info["icc_profile"] = body
    return image


def load_jpeg2000(image: ImageFile, data: bytes, reopen: Callable[[], ImageFile]) -> np.ndarray | Image.Image:
    """Loads a JPEG 2000 with white as white: Pillow shifts other depths than 8 and 16 bits up, with zeros below."""
    stored = load_samples(image, data, reopen)
    bits = jpeg2000_bits(image, data)
    full = 16 if image.mode == "I;16" else 8
    if bits < full and image.mode in ("L", "RGB", "I;16"):
        return scaled(np.asarray(stored) >> (full - bits), 2**bits - 1)
    return stored


def jpeg2000_bits(_: ImageFile, data: bytes) -> int:
    """Most bits per channel, from the codestream's header (ITU-T T.800, A.5.1)."""
    at = data.index(_CODESTREAM)
    (components,) = struct.unpack_from(">H", data, at + 40)
    depths = data[at + 42 : at + 42 + 3 * components : 3]
    return max(depth & 0x7F for depth in depths) + 1


def jpeg2000_notes(_: ImageFile, data: bytes) -> tuple[str, ...]:
    """`color_space` if the colours are not sRGB's (a profile is judged elsewhere)."""
    spaces = [int.from_bytes(body[:4], "big") for method, body in _jpeg2000_colours(data) if method == 1]
    return ("color_space",) if set(spaces) - _KNOWN_SPACES else ()


def _avif_properties(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    for meta in _inside(data, b"meta"):
        for properties in _inside(meta[4:], b"iprp"):
            for container in _inside(properties, b"ipco"):
                yield from boxes(container)


def _jpeg2000_colours(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Method of each colour specification, and what it says."""
    if not data.startswith(_CODESTREAM):
        for header in _inside(data, b"jp2h"):
            for body in _inside(header, b"colr"):
                yield body[0], body[3:]


def _inside(data: bytes, kind: bytes) -> list[bytes]:
    return [body for found, body in boxes(data) if found == kind]


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of each box, up to where the data ends or makes no sense."""
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        header = 8
        if length == 1 and at + 16 <= len(data):
            (length,) = struct.unpack_from(">Q", data, at + 8)
            header = 16
        end = at + length if length else len(data)
        if end < at + header or end > len(data):
            return
        yield kind, data[at + header : end]
        at = end
