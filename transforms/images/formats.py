"""The image formats: one row each. Add a row to read another one."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image
from PIL.AvifImagePlugin import SUPPORTED as AVIF_SUPPORTED
from PIL.ImageFile import ImageFile
from PIL.TgaImagePlugin import TgaImageFile
from PIL.WebPImagePlugin import WebPImageFile

from transforms.images.bmp import bmp_notes, open_bmp
from transforms.images.boxes import avif_bits, avif_notes, open_avif
from transforms.images.decode_error import DecodeError
from transforms.images.dicom import DICOM_SUPPORTED, dicom_bits, dicom_notes, load_dicom, open_dicom
from transforms.images.gif import open_gif
from transforms.images.heic import HEIC_SUPPORTED, heic_bits, open_heic
from transforms.images.jpeg import jpeg_notes, load_jpeg, open_jpeg
from transforms.images.jpeg2000 import check_jpeg2000, jpeg2000_bits, jpeg2000_notes, load_jpeg2000, open_jpeg2000
from transforms.images.jpeg_xl import JPEG_XL_SUPPORTED, jpeg_xl_bits, jpeg_xl_size, open_jpeg_xl
from transforms.images.missing_pixels import check_background
from transforms.images.png import open_png, png_bits, png_notes
from transforms.images.pnm import load_pnm, open_pnm, pnm_bits
from transforms.images.sixteen_bits import load_samples
from transforms.images.tiff import check_tiff, open_tiff, tiff_bits, tiff_notes
from transforms.images.webp import webp_size

# Modes of Pillow in which white has one agreed value.
MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I;16B"})
_SNIFFED_BYTES = 1024

Reopen = Callable[[], ImageFile]


@dataclass(frozen=True)
class ImageFormat:
    """An image format, and what has to be done around Pillow's reader of it.

    Attributes:
        name: what messages call it.
        magic: regular expression of a file's first bytes.
        open: opens a file without loading its pixels; None: the format is recognized and refused by name.
        size: reads width and height from the header, where opening alone allocates the pixels; None: Pillow's is early
            enough.
        modes: Pillow's modes in which its pixels are taken.
        load: loads the pixels of an opened file, as an image or as samples [H, W] or [H, W, C]; the last argument
            opens the file again.
        check: raises `DecodeError` if Pillow left pixels of the loaded image out.
        bits: bits per channel in the file.
        notes: what else is to be said of a loaded image: keys of `decode.NOTES`.
        may_lack_alpha: whether opacity that is zero everywhere means that there is none.
        extra: of the package, which installs the reader; empty: it needs none.
    """

    name: str
    magic: bytes
    open: Callable[[bytes], ImageFile] | None = None
    size: Callable[[bytes], tuple[int, int]] | None = None
    modes: frozenset[str] = MODES
    load: Callable[[ImageFile, bytes, Reopen], Image.Image | np.ndarray] = load_samples
    check: Callable[[ImageFile, bytes, Reopen], None] = lambda *_: None
    bits: Callable[[ImageFile, bytes], int] = lambda *_: 8
    notes: Callable[[ImageFile, bytes], tuple[str, ...]] = lambda *_: ()
    may_lack_alpha: bool = False
    extra: str = ""


def with_pillow(plugin: type[ImageFile]) -> Callable[[bytes], ImageFile]:
    """Opens files with one of Pillow's readers."""
    return lambda data: plugin(BytesIO(data))


# The first row whose magic matches is the format.
IMAGE_FORMATS = (
    ImageFormat(
        "PNG",
        rb"\x89PNG\r\n\x1a\n",
        open_png,
        check=check_background,
        bits=png_bits,
        notes=png_notes,
    ),
    ImageFormat("JPEG-LS", rb"\xff\xd8\xff\xf7"),
    ImageFormat("JPEG", rb"\xff\xd8\xff", open_jpeg, load=load_jpeg, notes=jpeg_notes),
    ImageFormat("WebP", rb"RIFF.{4}WEBPVP8[ LX]", with_pillow(WebPImageFile), size=webp_size),
    # With the length of the header, because many a text begins with BM.
    ImageFormat("BMP", rb"BM.{12}.\0\0\0", open_bmp, notes=bmp_notes, may_lack_alpha=True),
    ImageFormat("TIFF", rb"II[*+]\0|MM\0\*", open_tiff, check=check_tiff, bits=tiff_bits, notes=tiff_notes),
    ImageFormat("GIF", rb"GIF8[79]a", open_gif),
    ImageFormat(
        "AVIF",
        # Behind a brand of any such file, one of those that it is compatible with tells an AVIF from a HEIC.
        rb".{4}ftyp(?:(?:mif|msf)1.{4}(?:.{4}){0,15}?)?avi[fs]",
        open_avif if AVIF_SUPPORTED else None,
        bits=avif_bits,
        notes=avif_notes,
    ),
    ImageFormat(
        "JPEG 2000",
        rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ",
        open_jpeg2000,
        load=load_jpeg2000,
        check=check_jpeg2000,
        bits=jpeg2000_bits,
        notes=jpeg2000_notes,
    ),
    ImageFormat("PNM", rb"P[1-6]\s", open_pnm, modes=MODES | {"I"}, load=load_pnm, bits=pnm_bits),
    ImageFormat("big-endian BigTIFF", rb"MM\0\+"),
    ImageFormat("PAM", rb"P7\s"),
    ImageFormat("PFM", rb"P[Ff]\s"),
    ImageFormat("JPEG XR", rb"II\xbc"),
    ImageFormat(
        "JPEG XL",
        rb"\xff\x0a|\0\0\0\x0cJXL ",
        open_jpeg_xl if JPEG_XL_SUPPORTED else None,
        size=jpeg_xl_size,
        bits=jpeg_xl_bits,
        extra="jxl",
    ),
    ImageFormat(
        "HEIC",
        rb".{4}ftyp(?:he[ivx]|mif1|msf1)",
        open_heic if HEIC_SUPPORTED else None,
        bits=heic_bits,
        notes=avif_notes,
        extra="heic",
    ),
    ImageFormat(
        "DICOM",
        rb".{128}DICM",
        open_dicom if DICOM_SUPPORTED else None,
        load=load_dicom,
        bits=dicom_bits,
        notes=dicom_notes,
        extra="tensorflow-io",
    ),
    ImageFormat("OpenEXR", rb"v/1\x01"),
    ImageFormat("Radiance HDR", rb"#\?RAD"),
    ImageFormat("PDF", rb"%PDF-"),
    ImageFormat("Photoshop", rb"8BPS"),
    ImageFormat("QOI", rb"qoif"),
    ImageFormat("DDS", rb"DDS "),
    ImageFormat("ICO", rb"\0\0\x01\0"),
    ImageFormat("SVG", rb"(?:\xef\xbb\xbf)?\s*(?:<[?!](?:(?!(?i:<html)).)*)?<svg"),
    # The last, because a TGA has no magic: these are its types of image, with and without a table of colours.
    ImageFormat(
        "TGA",
        rb".(?:\0[\x02\x03\x0a\x0b]\0{5}|\x01[\x01\x09].{4}[\x10\x18\x20]).{8}[\x01\x08\x10\x18\x20][\0-\x3f]",
        with_pillow(TgaImageFile),
        may_lack_alpha=True,
    ),
)


def sniff(data: bytes) -> ImageFormat:
    """The format of a file, by its first bytes.

    Raises:
        DecodeError: for a format that is not decoded, and for no format at all.
    """
    head = data[:_SNIFFED_BYTES]
    for row in IMAGE_FORMATS:
        if re.match(row.magic, head, re.DOTALL):
            if row.open is None:
                if row.extra:
                    message = f'{row.name} is not decoded here: pip install "pairloss[{row.extra}]" on every worker.'
                    raise DecodeError("unsupported_format", message)
                names = ", ".join(row.name for row in IMAGE_FORMATS if row.open)
                raise DecodeError("unsupported_format", f"{row.name} is not decoded; use {names}.")
            return row
    raise DecodeError("unknown_format", f"No image format begins with {data[:8]!r}.")
