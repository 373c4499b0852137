"""SSIM, MS-SSIM and GMSD in few passes. `structure` defines them, and says why their formulas look like this."""

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import overload

from transforms.losses.constants import (
    GMSD_T,
    MS_SSIM_FLOOR,
    MS_SSIM_WEIGHTS,
    RGB2GRAY_WEIGHTS,
    SSIM_C1,
    SSIM_C2,
    SSIM_WINDOW,
)
from transforms.losses.levels import full_range
from transforms.worker.compiled import compiled

_CHANNELS = 3
# The length of SSIM's window, as a constant: the compiler unrolls loops of a known length, and vectorises around them.
_TAPS = 11
# Kernels get the constants of `constants.py` as arguments: code on disk is known by the kernel's own file alone.
_QUARTER, _THIRD = np.float32(1 / 4), np.float32(1 / 3)
_WHITE = np.float32(255)

# Sums may be reordered, so that they vectorise; NaN and infinity keep their meaning.
_FASTMATH = {"reassoc", "nsz", "contract"}


def ssim(generated: np.ndarray, target: np.ndarray) -> float:
    """As `structure.ssim`, in float64."""
    rows = (image.reshape(len(image), -1) for image in (generated, target))
    similarity: float = _ssim_of_levels(*rows, SSIM_WINDOW, _guards(full_range(generated)))
    return similarity


def ms_ssim(generated: np.ndarray, target: np.ndarray) -> float:
    """As `structure.ms_ssim`, in float64."""
    return float(np.mean([_ms_ssim(generated, target, channel) for channel in np.eye(_CHANNELS)]))


def _ms_ssim(generated: np.ndarray, target: np.ndarray, channel: np.ndarray) -> float:
    planes = sum_and_difference(generated, target, channel / full_range(generated), 0.0)
    product = 1.0
    for octave, weight in enumerate(MS_SSIM_WEIGHTS):
        if octave > 0:
            planes = halved(planes)
        similarity = ssim_mean(planes, with_luminance=octave == len(MS_SSIM_WEIGHTS) - 1)
        product *= similarity**weight if similarity > MS_SSIM_FLOOR else 0.0
    return product


def ssim_mean(planes: np.ndarray, full_range: float = 1.0, with_luminance: bool = True) -> float:
    """The mean over the windows of one channel of SSIM, or of its contrast-structure alone.

    Args:
        planes: float64 [2, H, W], sides of 11 or more: the sum and the difference of two images.
        full_range: the images' values are those from 0 to this.
        with_luminance: whether SSIM's luminance counts.
    """
    mean: float = _ssim_mean(planes, SSIM_WINDOW, _guards(full_range), with_luminance)
    return mean


def _guards(full_range: float) -> np.ndarray:
    return 2 * np.array([SSIM_C1, SSIM_C2]) * full_range**2


def gmsd(generated: np.ndarray, target: np.ndarray) -> float:
    """As `structure.gmsd`."""
    step = levels_per_step(generated)
    magnitudes = (_gradient_magnitude(image, step, RGB2GRAY_WEIGHTS) for image in (generated, target))
    return _deviation(*(magnitude.ravel() for magnitude in magnitudes), np.float32(GMSD_T))


def levels_per_step(image: np.ndarray) -> float:
    """How many of an image's levels make one of 8 bits; floats are turned into those of 8 bits first."""
    return full_range(image) / 255 if image.dtype.kind == "u" else 1.0


def _level(value: Any) -> Any:
    """A level as it is, or a float in [0, 1] as 8 bits, not rounded: in float32, as `structure.gmsd` does it."""


@overload(_level)
def _level_of(value):  # type: ignore[no-untyped-def]
    if isinstance(value, types.Float):
        return lambda value: _WHITE * value
    return lambda value: value


@compiled(nogil=True, fastmath=_FASTMATH, error_model="numpy")
def _ssim_of_levels(generated, target, window, guards):  # type: ignore[no-untyped-def]
    """SSIM of two images [H, W * 3] of whole levels or floats; the guards are those of the same scale."""
    height, width = generated.shape
    # Sums and differences of levels are exact in float32, which takes half the memory.
    planes = np.empty((2, height, width), np.float32)
    for y in range(height):
        for x in range(width):
            g, t = np.float32(generated[y, x]), np.float32(target[y, x])
            planes[0, y, x] = g + t
            planes[1, y, x] = g - t
    return _windows_mean(planes, window, guards, _CHANNELS, True)


@compiled(nogil=True, fastmath=_FASTMATH, error_model="numpy")
def _ssim_mean(planes, window, guards, with_luminance):  # type: ignore[no-untyped-def]
    return _windows_mean(planes, window, guards, 1, with_luminance)


@numba.njit(nogil=True, fastmath=_FASTMATH, error_model="numpy")
def _windows_mean(planes, window, guards, channels, with_luminance):  # type: ignore[no-untyped-def]
    """The mean of SSIM, or of its contrast-structure alone, over the windows of [2, H, W * channels].

    The moments are float64: the variance of a flat window is a small difference of large squares.
    """
    _, height, width = planes.shape
    inside = width - (_TAPS - 1) * channels
    rows = planes.reshape(2, height * width)
    # Means over the windows' columns of s and d, and of s² and d².
    means, squares = np.empty((2, width)), np.empty((2, width))
    total = 0.0
    for y in range(height - _TAPS + 1):
        for plane in range(2):
            _column_means(rows[plane, y * width :], window, means[plane], squares[plane])
        total += _row_sum(means, squares, window, guards, channels, inside, with_luminance)
    return total / ((height - _TAPS + 1) * inside)


@numba.njit(nogil=True, fastmath=_FASTMATH, error_model="numpy")
def _column_means(values, window, means, squares):  # type: ignore[no-untyped-def]
    """Write the weighted means down the columns of the first rows in `values`, and those of the squares."""
    width = len(means)
    for x in range(width):
        mean, square = 0.0, 0.0
        for tap in range(_TAPS):
            value = np.float64(values[x + tap * width])
            weighted = window[tap] * value
            mean += weighted
            square += weighted * value
        means[x] = mean
        squares[x] = square


@numba.njit(nogil=True, fastmath=_FASTMATH, error_model="numpy")
def _row_sum(means, squares, window, guards, channels, inside, with_luminance):  # type: ignore[no-untyped-def]
    """The sum of SSIM, or of its contrast-structure, over a row of windows. At d = 0 each is exactly 1."""
    totals, differences, square_totals, square_differences = means[0], means[1], squares[0], squares[1]
    luminance_guard, contrast_guard = guards[0], guards[1]
    total = 0.0
    for x in range(inside):
        mean_total, mean_difference, square_total, square_difference = 0.0, 0.0, 0.0, 0.0
        for tap in range(_TAPS):
            weight, column = window[tap], x + tap * channels
            mean_total += weight * totals[column]
            mean_difference += weight * differences[column]
            square_total += weight * square_totals[column]
            square_difference += weight * square_differences[column]
        squared_total, squared_difference = mean_total * mean_total, mean_difference * mean_difference
        variance_total = square_total - squared_total
        variance_difference = square_difference - squared_difference
        denominator = variance_total + variance_difference + contrast_guard
        numerator = denominator - 2 * variance_difference
        # One division for both terms.
        if with_luminance:
            luminance = squared_total + squared_difference + luminance_guard
            numerator *= luminance - 2 * squared_difference
            denominator *= luminance
        total += numerator / denominator
    return total


@compiled(nogil=True, fastmath=_FASTMATH, error_model="numpy")
def sum_and_difference(generated, target, weights, shift):  # type: ignore[no-untyped-def]
    """Weighted sums over the channels of two images [H, W, 3], of their sum, to which `shift` is added, and difference.

    The result is float64 [2, H, W]. Equal pixels differ by exactly 0.
    """
    height, width, channels = generated.shape
    planes = np.empty((2, height, width))
    for y in range(height):
        for x in range(width):
            total, difference = shift, 0.0
            for channel in range(channels):
                g, t = np.float64(generated[y, x, channel]), np.float64(target[y, x, channel])
                total += weights[channel] * (g + t)
                difference += weights[channel] * (g - t)
            planes[0, y, x] = total
            planes[1, y, x] = difference
    return planes


@compiled(nogil=True, error_model="numpy")
def halved(image):  # type: ignore[no-untyped-def]
    """The means of two by two pixels of float64 [C, H, W]; at an odd edge, of those that there are."""
    channels, height, width = image.shape
    halved = np.empty((channels, (height + 1) // 2, (width + 1) // 2))
    for channel in range(channels):
        for y in range(halved.shape[1]):
            one, other = image[channel, 2 * y], image[channel, min(2 * y + 1, height - 1)]
            for x in range(width // 2):
                halved[channel, y, x] = (one[2 * x] + one[2 * x + 1] + other[2 * x] + other[2 * x + 1]) / 4
            if width % 2:
                halved[channel, y, -1] = (one[-1] + other[-1]) / 2
    return halved


# No fast-math from here on: both images of a pair must be rounded alike, so that equal ones stay equal.
@compiled(nogil=True, error_model="numpy")
def _gradient_magnitude(image, levels_per_step, gray):  # type: ignore[no-untyped-def]
    """Prewitt magnitude of the halved luma, zeros around it."""
    height, width, _ = image.shape
    halved = np.zeros(((height + 1) // 2 + 2, (width + 1) // 2 + 2), np.float32)
    luma = np.zeros(width + 1, np.float32)
    for y in range(height):
        row = halved[1 + y // 2]
        _round_luma(image[y], levels_per_step, gray, luma)
        for x in range((width + 1) // 2):
            row[x + 1] += (luma[2 * x] + luma[2 * x + 1]) * _QUARTER
    magnitude = np.empty((halved.shape[0] - 2, halved.shape[1] - 2), np.float32)
    for y in range(magnitude.shape[0]):
        above, here, below = halved[y], halved[y + 1], halved[y + 2]
        for x in range(magnitude.shape[1]):
            dy = below[x] + below[x + 1] + below[x + 2] - (above[x] + above[x + 1] + above[x + 2])
            dx = above[x + 2] + here[x + 2] + below[x + 2] - (above[x] + here[x] + below[x])
            magnitude[y, x] = np.sqrt(dy * dy + dx * dx) * _THIRD
    return magnitude


@compiled(nogil=True, error_model="numpy")
def rounded_luma(image, levels_per_step, gray):  # type: ignore[no-untyped-def]
    """The luma of [H, W, 3] in whole levels of 0..255, halves up: float64 [H, W]."""
    height, width, _ = image.shape
    luma = np.empty((height, width))
    for y in range(height):
        _round_luma(image[y], levels_per_step, gray, luma[y])
    return luma


@numba.njit(nogil=True, error_model="numpy")
def _round_luma(pixels, levels_per_step, gray, luma):  # type: ignore[no-untyped-def]
    """Write the rounded luma of a row [W, 3] into the first W of `luma`."""
    red, green, blue = gray
    for x in range(len(pixels)):
        weighted = red * _level(pixels[x, 0]) + green * _level(pixels[x, 1]) + blue * _level(pixels[x, 2])
        luma[x] = np.floor(weighted / levels_per_step + 0.5)


@compiled(nogil=True, error_model="numpy")
def _deviation(generated, target, guard):  # type: ignore[no-untyped-def]
    """Standard deviation, over N - 1, of the dissimilarity of two magnitudes."""
    dissimilarity = np.empty(generated.size, np.float32)
    total = 0.0
    for pixel in range(generated.size):
        a, b = generated[pixel], target[pixel]
        dissimilarity[pixel] = (a - b) * (a - b) / (a * a + b * b + guard)
        total += dissimilarity[pixel]
    mean = total / generated.size
    squares = 0.0
    for value in dissimilarity:
        squares += (value - mean) * (value - mean)
    return np.sqrt(squares / (generated.size - 1))
