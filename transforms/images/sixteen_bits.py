"""16 bits per channel of colour pictures, of which Pillow keeps the upper 8."""

import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

_RAW_MODE = re.compile(r";16([BLN])")


def load_samples(image: ImageFile, _: bytes, reopen: Callable[[], ImageFile]) -> np.ndarray | Image.Image:
    """Loads an opened image, with all 16 bits where Pillow unpacks colours of 16 bits to their upper bytes.

    Asked for the other byte order, Pillow unpacks the lower bytes instead: so it decodes such a picture twice.

    Returns:
        [H, W, C] uint16 in the machine's byte order, or the loaded image.
    """
    if image.info.get("gray_alpha_16"):
        image.load()
        return np.asarray(image).view(">u2").astype(np.uint16)
    orders = {order for tile in image.tile for order in _RAW_MODE.findall(str(tile.args))}
    both = len(orders) == 1 and image.mode in ("RGB", "RGBA") and not _hides_planes(image)
    image.load()
    if not both:
        return image
    order = orders.pop()
    if order == "N":
        order = "L" if sys.byteorder == "little" else "B"
    lower = reopen()
    other = ";16L" if order == "B" else ";16B"
    lower.tile = [tile._replace(args=_renamed(tile.args, other)) for tile in lower.tile]
    lower.load()
    return np.asarray(image).astype(np.uint16) << 8 | np.asarray(lower)


def scaled(samples: np.ndarray, most: int) -> np.ndarray:
    """Samples in [0, most] brought to all of their type's range, rounded as Pillow does."""
    top = np.iinfo(samples.dtype).max
    if most == top:
        return samples
    table = np.rint(np.arange(top + 1) / most * top).clip(max=top).astype(samples.dtype)
    return table[samples]


def _hides_planes(image: ImageFile) -> bool:
    """Tells whether libtiff unpacks planes that are stored one after the other: always to their upper bytes."""
    return getattr(image, "_planar_configuration", 1) == 2 and image.tile[0].codec_name == "libtiff"


def _renamed(args: Any, order: str) -> Any:
    """Arguments of Pillow's decoders with another byte order in the raw mode."""
    if isinstance(args, str):
        return _RAW_MODE.sub(order, args)
    return (_RAW_MODE.sub(order, args[0]), *args[1:])
