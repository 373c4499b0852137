"""CIEDE2000, and conversions of colours for other kernels, in float64. `color` defines them."""

import math
from functools import cache

import numba
import numpy as np

from transforms.losses.constants import HALF_TURN, XYZ_OF_RGB
from transforms.losses.fused.on_maps import OnMaps
from transforms.worker.compiled import compiled

_RADIANS = math.pi / 180
# CIELAB's curve: a line up to this limit, with this slope and offset.
_LINE = 0.008856, 7.787, 16 / 116


def linear_planes(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """A matrix times the linear RGB of each pixel.

    Args:
        image: sRGB [H, W, 3]: uint8 or uint16, or float32 in [0, 1].
        matrix: float64 [3, 3].

    Returns:
        float64 [3, H, W].
    """
    if image.dtype.kind == "u":
        return _linear_planes(image, _linear_levels(image.dtype), matrix)
    return _linear_planes_of_floats(image, matrix)


@cache
def _linear_levels(dtype: np.dtype) -> np.ndarray:
    """Linear RGB of every level of sRGB in uint8 or uint16, float64 in [0, 1]."""
    srgb = np.arange(np.iinfo(dtype).max + 1) / np.iinfo(dtype).max
    return np.where(srgb > 0.04045, ((srgb + 0.055) / 1.055) ** 2.4, srgb / 12.92)


@compiled(nogil=True, error_model="numpy")
def _linear_planes(image, levels, matrix):  # type: ignore[no-untyped-def]
    height, width, _ = image.shape
    planes = np.empty((3, height, width))
    for y in range(height):
        for x in range(width):
            red, green, blue = levels[image[y, x, 0]], levels[image[y, x, 1]], levels[image[y, x, 2]]
            for channel in range(3):
                row = matrix[channel]
                planes[channel, y, x] = row[0] * red + row[1] * green + row[2] * blue
    return planes


@compiled(nogil=True, error_model="numpy")
def _linear_planes_of_floats(image, matrix):  # type: ignore[no-untyped-def]
    height, width, _ = image.shape
    planes = np.empty((3, height, width))
    pixels, linear = image.reshape(height, width * 3), np.empty(width * 3)
    for y in range(height):
        for x in range(width * 3):
            srgb = np.float64(pixels[y, x])
            base = (max(srgb, 0.04045) + 0.055) / 1.055
            # base^2.4 is base² times the fifth root of base²: by Halley's method as in `replace_by_cube_roots`, from a
            # line that is 20 % off at most.
            square = base * base
            root = 0.39 + 0.68 * base
            for _ in range(3):
                power = root * root * root * root * root
                root *= (2 * power + 3 * square) / (3 * power + 2 * square)
            linear[x] = square * root if srgb > 0.04045 else srgb / 12.92
        for x in range(width):
            red, green, blue = linear[3 * x], linear[3 * x + 1], linear[3 * x + 2]
            for channel in range(3):
                row = matrix[channel]
                planes[channel, y, x] = row[0] * red + row[1] * green + row[2] * blue
    return planes


@compiled(nogil=True, error_model="numpy")
def replace_by_cube_roots(planes, limit, slope, offset):  # type: ignore[no-untyped-def]
    """Replace values up to 1.01 by their cube roots, to 13 digits; those up to a limit of 0.0035 or more, by a line.

    The planes are float64 in one piece, and change in place.
    """
    values = planes.ravel()
    for i in range(values.size):
        value = max(values[i], limit)
        # Three steps of Halley's method from a line that is 34 % off at most. A library's root would not vectorise.
        root = 0.2 + 1.12 * value
        for _ in range(3):
            cube = root * root * root
            root *= (cube + 2 * value) / (2 * cube + value)
        values[i] = root if values[i] > limit else slope * values[i] + offset


def _differences_of(generated: np.ndarray, target: np.ndarray) -> np.ndarray:
    """CIEDE2000 of every pixel, float64 [H, W]."""
    roots = [linear_planes(image, XYZ_OF_RGB) for image in (generated, target)]
    for planes in roots:
        replace_by_cube_roots(planes, *_LINE)
    differences: np.ndarray = _differences(*roots, HALF_TURN)
    return differences


# As `color.ciede2000`.
ciede2000 = OnMaps(_differences_of, lambda differences: float(differences.mean()))
# As `color.ciede2000_p95`.
ciede2000_p95 = OnMaps(_differences_of, lambda differences: float(np.quantile(differences, 0.95)))


@compiled(nogil=True, error_model="numpy")
def _differences(generated, target, half_turn):  # type: ignore[no-untyped-def]
    """CIEDE2000 of two images in XYZ [3, H, W] after CIELAB's curve: [H, W]."""
    _, height, width = generated.shape
    differences = np.empty((height, width))
    for y in range(height):
        for x in range(width):
            differences[y, x] = _delta_e_2000(_lab(generated[:, y, x]), _lab(target[:, y, x]), half_turn)
    return differences


@numba.njit(nogil=True, error_model="numpy")
def _lab(curved):  # type: ignore[no-untyped-def]
    x, y, z = curved[0], curved[1], curved[2]
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@numba.njit(nogil=True, error_model="numpy")
def _hue(a, b):  # type: ignore[no-untyped-def]
    """Degrees from 0 to 360."""
    hue = math.atan2(b, a) / _RADIANS
    return hue if hue >= 0 else hue + 360


@numba.njit(nogil=True, error_model="numpy")
def _delta_e_2000(one, other, half_turn):  # type: ignore[no-untyped-def]
    """The formula of `color.delta_e_2000`."""
    if one == other:
        return 0.0
    (l1, a1, b1), (l2, a2, b2) = one, other
    chroma7 = ((math.sqrt(a1 * a1 + b1 * b1) + math.sqrt(a2 * a2 + b2 * b2)) / 2) ** 7
    stretch = 1 + 0.5 * (1 - math.sqrt(chroma7 / (chroma7 + 25.0**7)))
    a1, a2 = stretch * a1, stretch * a2
    c1, c2 = math.sqrt(a1 * a1 + b1 * b1), math.sqrt(a2 * a2 + b2 * b2)
    h1, h2 = _hue(a1, b1), _hue(a2, b2)
    gray = c1 * c2 == 0

    turn = h2 - h1
    if turn > half_turn:
        turn -= 360
    elif turn < -half_turn:
        turn += 360
    mean_h = (h1 + h2) / 2
    if gray:
        turn, mean_h = 0.0, h1 + h2
    elif abs(h1 - h2) > half_turn:
        mean_h += 180 if mean_h < 180 else -180
    mean_l, mean_c = (l1 + l2) / 2, (c1 + c2) / 2
    t = (
        1
        - 0.17 * math.cos((mean_h - 30) * _RADIANS)
        + 0.24 * math.cos(2 * mean_h * _RADIANS)
        + 0.32 * math.cos((3 * mean_h + 6) * _RADIANS)
        - 0.20 * math.cos((4 * mean_h - 63) * _RADIANS)
    )
    mean_c7 = mean_c**7
    turned = 60 * _RADIANS * math.exp(-(((mean_h - 275) / 25) ** 2))
    rotation = -2 * math.sqrt(mean_c7 / (mean_c7 + 25.0**7)) * math.sin(turned)
    lightness = (l2 - l1) / (1 + 0.015 * (mean_l - 50) ** 2 / math.sqrt(20 + (mean_l - 50) ** 2))
    chroma = (c2 - c1) / (1 + 0.045 * mean_c)
    hue = 2 * math.sqrt(c1 * c2) * math.sin(turn * _RADIANS / 2) / (1 + 0.015 * mean_c * t)
    # Rounding may take the sum of an all but identical pair below 0.
    return math.sqrt(max(lightness**2 + chroma**2 + hue**2 + rotation * chroma * hue, 0.0))
