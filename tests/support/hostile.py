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
    "16 bit inverted",
    "16 bit near",
)


def hostile_pair(kind: str, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A generated image of this kind and its target, [H, W, 3], uint8 or uint16."""
    picture = smooth(height, width)
    black, white = np.zeros_like(picture), np.full_like(picture, 255)
    rows, columns = np.indices((height, width, 3))[:2]
    deep = noise(1, height, width, np.uint16)
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
        case "16 bit inverted":
            return np.uint16(65535) - deep, deep
        case "16 bit near":
            return deep ^ np.uint16(1), deep
    raise ValueError(kind)


def allowed_error(loss: str, exact: float) -> float:
    """A millionth of the value or of a tenth of the loss's range; of 1, which decibels and colours do not notice."""
    low, high = (float(bound) for bound in LOSSES[loss].range.strip("[()]").split(","))
    return 1e-6 * max(abs(exact), (high - low) / 10 if math.isfinite(high - low) else 1.0)
