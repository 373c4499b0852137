"""Which way up a picture is meant to be seen."""

import re
import struct

import numpy as np
from PIL.ImageFile import ImageFile

from transforms.images.tiff import tiff_number

_ORIENTATION = 274
# Some writers put the prefix of JPEG where none belongs, and Pillow another before it.
_EXIF_PREFIXES = re.compile(rb"^(?:Exif\0\0)+")
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])")


def find_orientation(image: ImageFile) -> tuple[int, bool]:
    """Orientation of a loaded image, from 1 (upright) to 8, and whether all of its EXIF block could be read.

    EXIF (in a TIFF: its own tag) takes precedence over XMP. It is read here, not with Pillow's `getexif`, which loads
    every tag, however large, and is slow on photographs.
    """
    exif, readable, orientation = image.info.get("exif"), True, None
    try:
        if exif is not None:
            orientation = tiff_number(_EXIF_PREFIXES.sub(b"", exif), _ORIENTATION)
    except struct.error:
        readable = False
    if orientation is None:
        xmp = image.info.get("xmp") or b""
        found = _XMP_ORIENTATION.search((xmp.encode() if isinstance(xmp, str) else bytes(xmp)).replace(b"\0", b""))
        orientation = int(found[1]) if found else 1
    return (orientation if 1 <= orientation <= 8 else 1), readable


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels [H, W, C] as they are meant to be seen, C-contiguous."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
