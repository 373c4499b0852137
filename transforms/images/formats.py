"""The image formats: one row each. Add a row to read another format that Pillow reads."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.WebPImagePlugin import WebPImageFile

from transforms.images.decode_error import DecodeError
from transforms.images.jpeg import JpegFile, check_jpeg
from transforms.images.missing_pixels import check_background
from transforms.images.png import PngFile, png_bits
from transforms.images.tiff import TiffFile, check_tiff_tags, has_agreed_white, tiff_bits
from transforms.images.webp import webp_size

_SNIFFED_BYTES = 1024


@dataclass(frozen=True)
class ImageFormat:
    """An image format, and what has to be checked around Pillow's reader of it.

    Attributes:
        name: what messages call it.
        magic: regular expression of a file's first bytes.
        plugin: Pillow's reader; None: the format is recognized and refused by name.
        check_header: raises `DecodeError` for a file that Pillow must not open.
        size: reads width and height from the header, where opening alone allocates the pixels; None: Pillow's is early
            enough.
        has_agreed_white: whether an opened image's pixels have a value that everybody takes for white.
        check_pixels: raises `DecodeError` if Pillow left pixels of the loaded image out.
        bits: bits per channel in the file.
    """

    name: str
    magic: bytes
    plugin: type[ImageFile] | None = None
    check_header: Callable[[bytes], None] = lambda _: None
    size: Callable[[bytes], tuple[int, int]] | None = None
    has_agreed_white: Callable[[ImageFile], bool] = lambda _: True
    check_pixels: Callable[[ImageFile, bytes], None] = lambda *_: None
    bits: Callable[[ImageFile, bytes], int] = lambda *_: 8


# The first row whose magic matches is the format.
IMAGE_FORMATS = (
    ImageFormat("PNG", rb"\x89PNG\r\n\x1a\n", PngFile, check_pixels=check_background, bits=png_bits),
    ImageFormat("JPEG", rb"\xff\xd8\xff", JpegFile, check_pixels=check_jpeg),
    ImageFormat("WebP", rb"RIFF.{4}WEBPVP8[ LX]", WebPImageFile, size=webp_size),
    # With the length of the header, because many a text begins with BM.
    ImageFormat("BMP", rb"BM.{12}.\0\0\0", BmpImageFile),
    ImageFormat(
        "TIFF",
        rb"II\*\0|MM\0\*",
        TiffFile,
        check_header=check_tiff_tags,
        has_agreed_white=has_agreed_white,
        check_pixels=check_background,
        bits=tiff_bits,
    ),
    ImageFormat("GIF", rb"GIF8[79]a", GifImageFile),
    ImageFormat("BigTIFF", rb"II\+\0|MM\0\+"),
    ImageFormat("JPEG XR", rb"II\xbc"),
    ImageFormat("JPEG XL", rb"\xff\x0a|\0\0\0\x0cJXL "),
    ImageFormat("JPEG 2000", rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  "),
    ImageFormat("AVIF", rb".{4}ftypavi[fs]"),
    ImageFormat("HEIC", rb".{4}ftyp(?:he[ivx]|mif1|msf1)"),
    ImageFormat("OpenEXR", rb"v/1\x01"),
    ImageFormat("Radiance HDR", rb"#\?RAD"),
    ImageFormat("PDF", rb"%PDF-"),
    ImageFormat("Photoshop", rb"8BPS"),
    ImageFormat("QOI", rb"qoif"),
    ImageFormat("DDS", rb"DDS "),
    ImageFormat("ICO", rb"\0\0\x01\0"),
    ImageFormat("PNM", rb"P[1-7]\s"),
    ImageFormat("NumPy", rb"\x93NUMPY"),
    ImageFormat("SVG", rb"(?:\xef\xbb\xbf)?\s*(?:<[?!].*)?<svg"),
)


def sniff(data: bytes) -> ImageFormat:
    """The format of a file, by its first bytes.

    Raises:
        DecodeError: for a format that is not decoded, and for no format at all.
    """
    head = data[:_SNIFFED_BYTES]
    for row in IMAGE_FORMATS:
        if re.match(row.magic, head, re.DOTALL):
            if row.plugin is None:
                names = ", ".join(row.name for row in IMAGE_FORMATS if row.plugin)
                raise DecodeError("unsupported_format", f"{row.name} is not decoded; use {names}.")
            return row
    raise DecodeError("unknown_format", f"No image format begins with {data[:8]!r}.")
