"""Pictures on which a careless loss loses its digits, and how many it has to keep."""

import math

import numpy as np
from support.pictures import noise, smooth

from transforms.losses.catalog import LOSSES

KINDS = (
    "constant",
    "black and white",
    "inverted",
    "checkerboards",
    "one pixel",
    "nearly black",
    "nearly saturated",
    "halves",
    "far apart",
    "ramps",
    "16 bit inverted",
    "16 bit near",
    "not of levels",
    "nearly equal floats",
)


def hostile_pair(kind: str, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A generated image of this kind and its target, [H, W, 3]: uint8, uint16, or float32 in [0, 1]."""
    picture = smooth(height, width)
    black, white = np.zeros_like(picture), np.full_like(picture, 255)
    rows, columns = np.indices((height, width, 3))[:2]
    deep, floats = (
        noise(1, height, width, np.uint16),
        np.random.default_rng(6).random((2, height, width, 3), np.float32),
    )
    match kind:
        case "constant":
            return black + np.uint8([200, 13, 77]), black + np.uint8([199, 90, 250])
        case "black and white":
            return black, white
        case "inverted":
            return white - picture, picture
        case "checkerboards":
            board = np.where((rows + columns) % 2, white, black)
            return white - board, board
        case "one pixel":
            changed = picture.copy()
            changed[height // 2, width // 2] ^= 255
            return changed, picture
        case "nearly black":
            return noise(1, height, width) % 3, noise(2, height, width) % 3
        case "nearly saturated":
            return white - noise(1, height, width) % 3, white - noise(2, height, width) % 3
        case "halves":
            return np.where(rows < height // 2, white, black), np.where(columns < width // 2, white, black)
        case "far apart":
            return np.where(columns < width // 3, black + 18, black + 237), black + 237
        case "ramps":
            ramp = np.uint8(columns * 255 // max(width - 1, 1))
            return white - ramp, ramp
        case "16 bit inverted":
            return np.uint16(65535) - deep, deep
        case "16 bit near":
            return deep ^ np.uint16(1), deep
        case "not of levels":
            return floats[0], floats[1]
        case "nearly equal floats":
            return np.nextafter(floats[0], np.float32(0)), floats[0]
    raise ValueError(kind)


def as_floats(image: np.ndarray) -> np.ndarray:
    """The image as float32 in [0, 1]."""
    return image / np.float32(np.iinfo(image.dtype).max) if image.dtype.kind == "u" else image


def allowed_error(loss: str, exact: float) -> float:
    """A millionth of the value or of a tenth of the loss's range; of 1, which decibels and colours do not notice."""
    low, high = (float(bound) for bound in LOSSES[loss].range.strip("[()]").split(","))
    return 1e-6 * max(abs(exact), (high - low) / 10 if math.isfinite(high - low) else 1.0)
