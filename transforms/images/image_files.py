"""Untrusted bytes to a whole Pillow image of a known format, or an error with its reason.

Pillow is told which format to expect; it never guesses. `formats` says what has to be checked around it.
"""

import logging
import re
import warnings
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from transforms.images.decode_error import DecodeError
from transforms.images.formats import sniff

# Pillow reports oddities of hostile files as log lines and warnings; here they are notes and failures.
logging.getLogger("PIL").setLevel(logging.CRITICAL)
_PILLOW_MODULES = r"PIL\."
_PILLOW_FILTER = ("ignore", None, Warning, re.compile(_PILLOW_MODULES), 0)


@dataclass(frozen=True)
class LoadedImage:
    """The pixels of a file as they are stored: not turned, not converted.

    Attributes:
        image: as Pillow opened it, with its `mode` and `info`.
        stored: the first frame or page: an image in a mode that has an agreed white, or samples [H, W] or [H, W, C],
            uint8 or uint16.
        bits: per channel in the file; `stored` may have fewer.
        may_lack_alpha: whether opacity that is zero everywhere means that there is none.
        notes: keys of `decode.NOTES`.
    """

    image: ImageFile
    stored: Image.Image | np.ndarray
    bits: int
    may_lack_alpha: bool
    notes: tuple[str, ...]


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
    assert format.open
    reopen = partial(format.open, data)
    _silence_pillow()
    if format.size:
        _check_size(*format.size(data), max_pixels)
    image = reopen()
    _check_size(*image.size, max_pixels)
    if image.mode not in format.modes:
        raise DecodeError("unsupported_mode", f"{format.name} with pixels of Pillow's mode {image.mode!r}.")
    # Asked before loading: a GIF finds out by reading on, and forgets its pixels.
    animated = getattr(image, "is_animated", False)
    stored = format.load(image, data, reopen)
    if isinstance(stored, Image.Image) and stored.mode in ("P", "PA"):
        _check_indices(stored, format.name)
    format.check(image, data, reopen)
    notes = (("animated",) if animated else ()) + format.notes(image, data)
    return LoadedImage(image, stored, format.bits(image, data), format.may_lack_alpha, notes)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        message = f"The header claims {width}x{height} pixels; max_image_pixels is {max_pixels}."
        raise DecodeError("too_many_pixels", message)


def _check_indices(image: Image.Image, format: str) -> None:
    """Raises DecodeError for an index beyond the palette, which Pillow takes for a gray of its own."""
    indices = image if image.mode == "P" else image.getchannel("P")
    largest, colours = int(np.asarray(indices).max()), len(image.getpalette() or ()) // 3
    if largest >= colours:
        raise DecodeError("corrupt", f"{format}: a pixel has the index {largest} in a palette of {colours} colours.")


def _silence_pillow() -> None:
    """Ignores warnings out of Pillow, in the whole process: `catch_warnings` would not be safe among threads.

    Called for every image, because whoever sets other filters may come later.
    """
    if warnings.filters[:1] != [_PILLOW_FILTER]:
        warnings.filterwarnings("ignore", module=_PILLOW_MODULES)
