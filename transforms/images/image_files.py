"""Untrusted bytes to a whole Pillow image of a known format, or an error with its reason.

Pillow is told which format to expect, by magic bytes and an allow-list; it never guesses. Three things it lets
through are caught here: a JPEG whose data ends early but has an end marker (filled with mid-gray), pixels that a PNG
or TIFF lacks (left as they were), and metadata made to use up the memory.
"""

import logging
import re
import struct
import warnings
from dataclasses import dataclass
from io import BytesIO

from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile


class DecodeError(Exception):
    """An image, or a pair, that cannot be used.

    Attributes:
        reason: a key of `decode.REASONS`.
        message: one sentence for people.
        image: `generated`, `target` or `pair`; empty when only one image was decoded.
    """

    def __init__(self, reason: str, message: str, image: str = "") -> None:
        super().__init__(reason, message, image)
        self.reason = reason
        self.message = message
        self.image = image

    def __str__(self) -> str:
        return f"{self.image} {self.reason}: {self.message}".lstrip()


@dataclass(frozen=True)
class LoadedImage:
    """The pixels of a file as they are stored: not turned, not converted.

    Attributes:
        image: the first frame or page, loaded, in a mode that has an agreed white.
        animated: whether there are more frames or pages.
        bits: per channel in the file; the image may have fewer.
    """

    image: ImageFile
    animated: bool
    bits: int


def sniff(data: bytes) -> str:
    """Name of the format, a key of `PLUGINS`, by the first bytes.

    Raises:
        DecodeError: for a format that is not decoded, and for no format at all.
    """
    for name, magic in MAGIC.items():
        if magic.match(data, 0, _SNIFFED_BYTES):
            if name not in PLUGINS:
                raise DecodeError("unsupported_format", f"{name} is not decoded; use {', '.join(PLUGINS)}.")
            return name
    raise DecodeError("unknown_format", f"No image format begins with {data[:8]!r}.")


def load_image(name: str, data: bytes, max_pixels: int) -> LoadedImage:
    """Loads the first image of a file. Safe to call from many threads.

    Args:
        name: of the format, from `sniff`.
        data: the file.
        max_pixels: largest width * height, checked in the header.

    Raises:
        DecodeError: for what Pillow lets through.
        Exception: out of Pillow, which raises nearly anything on hostile bytes.
    """
    _silence_pillow()
    if name == "WebP":
        _check_webp(data, max_pixels)
    elif name == "TIFF":
        _check_tiff(data)
    stream = BytesIO(data)
    image = PLUGINS[name](stream)
    _check_pixels(*image.size, max_pixels)
    _check_mode(image)
    # Asked before loading: a GIF finds out by reading on, and forgets its pixels.
    animated = getattr(image, "is_animated", False)
    position = stream.tell()
    image.load()
    _check_whole(image, data, position)
    return LoadedImage(image, animated, _sample_bits(image, data))


def tiff_directory(tiff: bytes) -> list[tuple[int, int, int, int]]:
    """Entries of the first directory of a TIFF: tag, type, count, and the value where it is one 16-bit number.

    Raises:
        struct.error: where the data ends too early.
    """
    order = "<" if tiff.startswith(b"II") else ">"
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    (entries,) = struct.unpack_from(order + "H", tiff, start)
    (table,) = struct.unpack_from(f"{12 * entries}s", tiff, start + 2)
    return list(struct.iter_unpack(order + "HHIH2x", table))


# ---- The formats ----


class _JpegFile(JpegImageFile):
    """A JPEG whose EXIF block Pillow leaves alone: it would read every tag, just for the resolution."""

    def _open(self) -> None:
        self.info["dpi"] = (72, 72)
        super()._open()


class _OnBackground(ImageFile):
    """Decodes onto a background instead of zeros, which many a picture has: where it shows, pixels may be missing.

    Attributes:
        background: every byte of it.
    """

    background = 157

    def load_prepare(self) -> None:
        """Make the image, with the background in it."""
        super().load_prepare()
        self.im.paste((self.background,) * self.im.bands, (0, 0, *self.im.size))


class _PngFile(_OnBackground, PngImageFile):
    """A PNG on a background."""


class _TiffFile(_OnBackground, TiffImageFile):
    """A TIFF on a background that Pillow neither turns nor reads sub-directories of."""

    def load_end(self) -> None:
        """Leave the pixels as they are stored."""


PLUGINS: dict[str, type[ImageFile]] = {
    "PNG": _PngFile,
    "JPEG": _JpegFile,
    "WebP": WebPImageFile,
    "BMP": BmpImageFile,
    "TIFF": _TiffFile,
    "GIF": GifImageFile,
}
# First bytes of each format, tried in order; those without a plugin are refused by name.
_PATTERNS = {
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "JPEG": rb"\xff\xd8\xff",
    "WebP": rb"RIFF.{4}WEBPVP8[ LX]",
    "GIF": rb"GIF8[79]a",
    "TIFF": rb"II\*\0|MM\0\*",
    "BMP": rb"BM.{12}.\0\0\0",  # with the length of the header, for "BM" begins many a text
    "BigTIFF": rb"II\+\0|MM\0\+",
    "JPEG XR": rb"II\xbc",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "JPEG 2000": rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ",
    "AVIF": rb".{4}ftypavi[fs]",
    "HEIC": rb".{4}ftyp(?:he[ivx]|mif1|msf1)",
    "OpenEXR": rb"v/1\x01",
    "Radiance HDR": rb"#\?RAD",
    "PDF": rb"%PDF-",
    "Photoshop": rb"8BPS",
    "QOI": rb"qoif",
    "DDS": rb"DDS ",
    "ICO": rb"\0\0\x01\0",
    "PNM": rb"P[1-7]\s",
    "NumPy": rb"\x93NUMPY",
    "SVG": rb"(?:\xef\xbb\xbf)?\s*(?:<[?!].*)?<svg",
}
MAGIC = {name: re.compile(pattern, re.DOTALL) for name, pattern in _PATTERNS.items()}
_SNIFFED_BYTES = 1024

# Pillow reports oddities of hostile files as log lines and warnings; here they are notes and failures.
logging.getLogger("PIL").setLevel(logging.CRITICAL)
_PILLOW_MODULES = r"PIL\."
_PILLOW_FILTER = ("ignore", None, Warning, re.compile(_PILLOW_MODULES), 0)


def _silence_pillow() -> None:
    """Ignores warnings out of Pillow, in the whole process: `catch_warnings` would not be safe among threads.

    Called for every image, because whoever sets other filters may come later.
    """
    if warnings.filters[:1] != [_PILLOW_FILTER]:
        warnings.filterwarnings("ignore", module=_PILLOW_MODULES)


# ---- Checks of what Pillow lets through ----

_BITS_PER_SAMPLE, _PHOTOMETRIC, _BLACK_IS_ZERO = 258, 262, 1
# Bytes per value of the TIFF field types. Bytes may be many (profiles, XMP), tables of numbers are short.
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_BYTE_TYPES = frozenset({1, 2, 6, 7})
_MAX_TABLE_BYTES = 2**20

_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I;16B"})
_SCAN_END = re.compile(rb"\xff[^\0\xff\xd0-\xd7]")
# Entropy-coded rubbish: bits for a few blocks, then the same behind every restart marker.
_RUBBISH = bytes(range(17, 81)) + b"".join(bytes((0xFF, 0xD0 + n, *range(33, 49))) for n in range(8))


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        message = f"The header claims {width}x{height} pixels; max_image_pixels is {max_pixels}."
        raise DecodeError("too_many_pixels", message)


def _check_webp(data: bytes, max_pixels: int) -> None:
    """Checks the header before Pillow opens the file, for that alone allocates two canvases.

    Layout: RFC 9649, sections 2.5 to 2.7.
    """
    if int.from_bytes(data[4:8], "little") + 8 > len(data) or len(data) < 30:
        raise DecodeError("truncated", f"WebP: {len(data)} bytes are fewer than the header claims.")
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    _check_pixels(width, height, max_pixels)


def _check_tiff(data: bytes) -> None:
    """Refuses tags that claim more bytes than the file has: Pillow copies each tag's, overlapping or not."""
    sizes = [(kind, _TYPE_SIZES.get(kind, 0) * count) for _, kind, count, _ in tiff_directory(data)]
    tables = sum(size for kind, size in sizes if kind not in _BYTE_TYPES)
    if sum(size for _, size in sizes) > len(data) or tables > _MAX_TABLE_BYTES:
        raise DecodeError("corrupt", f"TIFF: the tags claim more bytes than fit in a file of {len(data)}.")


def _check_mode(image: ImageFile) -> None:
    """Refuses pixels for which no value is the agreed white."""
    usable = image.mode in _MODES
    if usable and isinstance(image, TiffImageFile) and image.mode.startswith("I;16"):
        # Pillow reads 12 bits into the same mode unscaled, and does not invert a white that is zero.
        layout = (image.tag_v2.get(_BITS_PER_SAMPLE), image.tag_v2.get(_PHOTOMETRIC))
        usable = layout == ((16,), _BLACK_IS_ZERO)
    if not usable:
        raise DecodeError("unsupported_mode", f"{image.format} with pixels of Pillow's mode {image.mode!r}.")


def _check_whole(image: ImageFile, data: bytes, position: int) -> None:
    """Fails where Pillow leaves pixels out instead of raising.

    Only an image that may lack some is looked at twice: it is decoded again with something else in their place. If
    that shows, pixels are missing. `position`: where a JPEG's first scan begins.
    """
    again: ImageFile
    if isinstance(image, JpegImageFile) and _ends_gray(image):
        scan_end = _SCAN_END.search(data, position)
        end = scan_end.start() if scan_end else len(data)
        again = type(image)(BytesIO(data[:end] + _RUBBISH + data[end:]))
    elif isinstance(image, _OnBackground) and _shows_background(image):
        again = type(image)(BytesIO(data))
        again.background = 0
    else:
        return
    again.load()
    if again.tobytes() != image.tobytes():
        size = f"{image.width}x{image.height}"
        raise DecodeError("truncated", f"{image.format}: fewer pixels than the {size} of the header.")


def _ends_gray(image: JpegImageFile) -> bool:
    """Whether the last pixel is mid-gray: so libjpeg leaves those without data, and only warns."""
    return {127, 128}.issuperset(_last_pixel(image))


def _shows_background(image: _OnBackground) -> bool:
    """Whether the last value of the file may be background. In an interlaced PNG it can lie anywhere."""
    return "interlace" in image.info or _last_pixel(image)[-1] & 0xFF == image.background


def _last_pixel(image: ImageFile) -> tuple[int, ...]:
    """Channels of the pixel at the lower right, as stored."""
    width, height = image.im.size
    pixel = image.im.getpixel((width - 1, height - 1))
    return pixel if isinstance(pixel, tuple) else (pixel,)


def _sample_bits(image: ImageFile, data: bytes) -> int:
    """Bits per channel in the file, where that can be more than 8."""
    if isinstance(image, PngImageFile):
        return data[24]
    if isinstance(image, TiffImageFile):
        return max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,)))
    return 8
