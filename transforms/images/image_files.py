"""Untrusted bytes to a whole Pillow image of a known format, or an error with its reason.

Pillow is told which format to expect; it never guesses. `formats` says what has to be checked around it.
"""

import logging
import re
import warnings
from dataclasses import dataclass
from io import BytesIO

from PIL.ImageFile import ImageFile

from transforms.images.decode_error import DecodeError
from transforms.images.formats import sniff

# Modes of Pillow in which white has one agreed value.
_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I;16B"})

# Pillow reports oddities of hostile files as log lines and warnings; here they are notes and failures.
logging.getLogger("PIL").setLevel(logging.CRITICAL)
_PILLOW_MODULES = r"PIL\."
_PILLOW_FILTER = ("ignore", None, Warning, re.compile(_PILLOW_MODULES), 0)


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


def load_image(data: bytes, max_pixels: int) -> LoadedImage:
    """Loads the first image of a file. Safe to call from many threads.

    Args:
        data: the file.
        max_pixels: largest width * height, checked in the header.

    Raises:
        DecodeError: for a format that is not decoded, and for what Pillow lets through.
        Exception: out of Pillow, which raises nearly anything on hostile bytes.
    """
    format = sniff(data)
    assert format.plugin
    _silence_pillow()
    format.check_header(data)
    if format.size:
        _check_size(*format.size(data), max_pixels)
    image = format.plugin(BytesIO(data))
    _check_size(*image.size, max_pixels)
    if image.mode not in _MODES or not format.has_agreed_white(image):
        raise DecodeError("unsupported_mode", f"{format.name} with pixels of Pillow's mode {image.mode!r}.")
    # Asked before loading: a GIF finds out by reading on, and forgets its pixels.
    animated = getattr(image, "is_animated", False)
    image.load()
    format.check_pixels(image, data)
    return LoadedImage(image, animated, format.bits(image, data))


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        message = f"The header claims {width}x{height} pixels; max_image_pixels is {max_pixels}."
        raise DecodeError("too_many_pixels", message)


def _silence_pillow() -> None:
    """Ignores warnings out of Pillow, in the whole process: `catch_warnings` would not be safe among threads.

    Called for every image, because whoever sets other filters may come later.
    """
    if warnings.filters[:1] != [_PILLOW_FILTER]:
        warnings.filterwarnings("ignore", module=_PILLOW_MODULES)
