"""PNM: the raw samples, which Pillow would bring to 8 bits one by one in Python."""

import re
from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.PpmImagePlugin import PpmImageFile

from transforms.images.decode_error import DecodeError
from transforms.images.sixteen_bits import load_samples, scaled

# Pillow reads a header byte by byte, and comments among plain samples one by one.
_HEADER_BYTES, _MOST_COMMENTS = 1 << 16, 10_000
_HEADER = re.compile(rb"P[1-6](?:(?:\s|#[^\r\n]*[\r\n])+\d+){2}")
_RAW_MODES = {"L": "L", "RGB": "RGB", "I": "I;16B"}


def open_pnm(data: bytes) -> ImageFile:
    """Opens a PNM. A maximum other than 255 is left in `info`, as `maxval`.

    Raises:
        DecodeError: `corrupt`, for a header or comments of a length that no picture has.
    """
    if len(data) > _HEADER_BYTES and not _HEADER.match(data[:_HEADER_BYTES]):
        raise DecodeError("corrupt", f"PNM: no size in the first {_HEADER_BYTES} bytes.")
    if data[1:2] in b"123" and data.count(b"#") > _MOST_COMMENTS:
        raise DecodeError("corrupt", f"PNM: more than {_MOST_COMMENTS} comments.")
    image = PpmImageFile(BytesIO(data))
    (tile,) = image.tile
    assert tile.args
    if tile.codec_name == "ppm":
        most = int(tile.args[-1])
        raw_mode = "RGB;16B" if most > 255 and image.mode == "RGB" else _RAW_MODES[image.mode]
        image.tile = [tile._replace(codec_name="raw", args=(raw_mode, 0, 1))]
        image.info["maxval"] = most
    elif tile.codec_name == "ppm_plain" and image.mode != "1":
        image.info["plain_maxval"] = int(tile.args[-1])
    if tile.codec_name != "ppm_plain":
        _skip_line_end(image, data)
    return image


def load_pnm(image: ImageFile, data: bytes, reopen: Callable[[], ImageFile]) -> np.ndarray | Image.Image:
    """Loads a PNM and brings its samples to all of 8 or 16 bits.

    Raises:
        DecodeError: `corrupt`, for a sample beyond the maximum.
    """
    stored = load_samples(image, data, reopen)
    if image.mode == "I":
        stored = np.asarray(image).astype(np.uint16)
    if "maxval" in image.info:
        samples, most = np.asarray(stored), image.info["maxval"]
        if samples.max() > most:
            raise DecodeError("corrupt", f"PNM: a sample of {samples.max()}, where {most} is the largest.")
        return scaled(samples, most)
    return stored


def pnm_bits(image: ImageFile, _: bytes) -> int:
    """8 or 16 bits per channel."""
    most = image.info.get("maxval", image.info.get("plain_maxval", 65535 if image.mode == "I" else 255))
    return 16 if most > 255 else 8


def _skip_line_end(image: ImageFile, data: bytes) -> None:
    """Skips the LF of a header that ends in CR LF, if the file is longer by that byte: Pillow takes it for a pixel."""
    (tile,) = image.tile
    raw_mode = tile.args if isinstance(tile.args, str) else str((tile.args or ("",))[0])
    bits = 1 if image.mode == "1" else 16 if "16" in raw_mode else 8
    raster = (image.width * len(image.getbands()) * bits + 7) // 8 * image.height
    if data[tile.offset - 1 : tile.offset + 1] == b"\r\n" and len(data) - tile.offset == raster + 1:
        image.tile = [tile._replace(offset=tile.offset + 1)]
