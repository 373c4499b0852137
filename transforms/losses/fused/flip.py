"""FLIP in few passes, in float64. `flip` defines it, and says why it takes float64."""

import math

import numpy as np

from transforms.losses.flip_constants import (
    COLOR_EXPONENT,
    FEATURES_ACROSS,
    FEATURES_DOWN,
    LAB_LIMIT,
    LARGEST,
    OPPONENT_OF_RGB,
    PART,
    PART_FILLS,
    RGB_OF_OPPONENT,
    SENSITIVITY,
    SENSITIVITY_WEIGHTS,
    XYZ_OF_RGB,
)
from transforms.losses.fused.color import linear_planes, replace_by_cube_roots
from transforms.worker.compiled import compiled

# Sums may be reordered, so that they vectorise; NaN and infinity keep their meaning.
_FASTMATH = {"reassoc", "nsz", "contract"}


def _filters() -> tuple[np.ndarray, np.ndarray]:
    """All filters, of equal length: the taps [K, 8] down and across of four for colours and four for features."""
    missing = (len(SENSITIVITY) - len(FEATURES_DOWN)) // 2
    down, across = (np.pad(taps, [(missing, missing), (0, 0)]) for taps in (FEATURES_DOWN, FEATURES_ACROSS / 116))
    return np.hstack([SENSITIVITY, down]), np.hstack([SENSITIVITY * SENSITIVITY_WEIGHTS, across])


_DOWN, _ACROSS = _filters()
# The channel of YCxCz that each of them filters.
_CHANNELS = np.array([0, 1, 2, 2, 0, 0, 0, 0])


def flip(generated: np.ndarray, target: np.ndarray) -> float:
    """As `flip.flip`."""
    mean: float = _mean(*map(_seen, (generated, target)), COLOR_EXPONENT, LARGEST, PART, PART_FILLS)
    return mean


def _seen(image: np.ndarray) -> np.ndarray:
    """XYZ of what the eye resolves, after CIELAB's curve, and how strong edges and points are: [5, H, W]."""
    opponent = linear_planes(image, OPPONENT_OF_RGB)
    seen: np.ndarray = _filtered(opponent, _DOWN, _ACROSS, _CHANNELS, RGB_OF_OPPONENT[:, [0, 1, 2, 2]], XYZ_OF_RGB)
    replace_by_cube_roots(seen[:3], LAB_LIMIT, (29 / 6) ** 2 / 3, 4 / 29)
    return seen


@compiled(nogil=True, fastmath=_FASTMATH, error_model="numpy")
def _filtered(opponent, down, across, channels, rgb_of_filtered, xyz_of_rgb):  # type: ignore[no-untyped-def]
    """XYZ of what the eye resolves of YCxCz [3, H, W], and how strong edges and points are: [5, H, W]."""
    _, height, width = opponent.shape
    taps, filters = down.shape
    radius = taps // 2
    padded = np.empty((filters, width + 2 * radius))
    filtered = np.empty((filters, width))
    seen = np.empty((5, height, width))
    for y in range(height):
        padded[:] = 0
        for tap in range(taps):
            row = min(max(y + tap - radius, 0), height - 1)
            for f in range(filters):
                weight, source = down[tap, f], opponent[channels[f], row]
                if weight != 0:
                    for x in range(width):
                        padded[f, radius + x] += weight * source[x]
        # The border repeats outside.
        for f in range(filters):
            padded[f, :radius] = padded[f, radius]
            padded[f, radius + width :] = padded[f, radius + width - 1]
        filtered[:] = 0
        for tap in range(taps):
            for f in range(filters):
                weight = across[tap, f]
                if weight != 0:
                    for x in range(width):
                        filtered[f, x] += weight * padded[f, x + tap]
        for x in range(width):
            for channel in range(3):
                total = 0.0
                for f in range(4):
                    total += rgb_of_filtered[channel, f] * filtered[f, x]
                padded[channel, x] = min(max(total, 0.0), 1.0)
            for channel in range(3):
                total = 0.0
                for f in range(3):
                    total += xyz_of_rgb[channel, f] * padded[f, x]
                seen[channel, y, x] = total
            seen[3, y, x] = math.sqrt(filtered[4, x] ** 2 + filtered[6, x] ** 2)
            seen[4, y, x] = math.sqrt(filtered[5, x] ** 2 + filtered[7, x] ** 2)
    return seen


@compiled(nogil=True, error_model="numpy")
def _mean(generated, target, exponent, largest, part, part_fills):  # type: ignore[no-untyped-def]
    """The mean of FLIP over the pixels of two images, each as `_seen`."""
    _, height, width = generated.shape
    in_part = math.log(part)
    total = 0.0
    for y in range(height):
        for x in range(width):
            x1, y1, z1 = generated[0, y, x], generated[1, y, x], generated[2, y, x]
            x2, y2, z2 = target[0, y, x], target[1, y, x], target[2, y, x]
            # Colours fade with the light (Hunt).
            light1, light2 = 116 * y1 - 16, 116 * y2 - 16
            a = 5 * (light1 * (x1 - y1) - light2 * (x2 - y2))
            b = 2 * (light1 * (y1 - z1) - light2 * (y2 - z2))
            difference = abs(light1 - light2) + math.sqrt(a * a + b * b)
            if difference > 0:
                # Logarithms are faster than one power after the other.
                color = exponent * math.log(difference) - math.log(largest)
                if color < in_part:
                    color += math.log(part_fills / part)
                else:
                    color = math.log(part_fills + (math.exp(color) - part) / (1 - part) * (1 - part_fills))
                edge, point = abs(generated[3, y, x] - target[3, y, x]), abs(generated[4, y, x] - target[4, y, x])
                total += math.exp(color * (1 - math.sqrt(max(edge, point) / math.sqrt(2))))
    return total / (height * width)
