"""SSIM, MS-SSIM and GMSD in few passes. `structure` defines them, and says why their formulas look like this."""

import numba
import numpy as np

from transforms.losses.constants import (
    GMSD_T,
    MS_SSIM_FLOOR,
    MS_SSIM_WEIGHTS,
    RGB2GRAY_WEIGHTS,
    SSIM_C1,
    SSIM_C2,
    SSIM_WINDOW,
)
from transforms.worker.compiled import compiled

_CHANNELS = 3
_ONE, _TWO = np.float32(1), np.float32(2)
# Kernels get the constants of `constants.py` as arguments: code on disk is known by the kernel's own file alone.
_SSIM_GUARDS = 2 * SSIM_C1, 2 * SSIM_C2
_SSIM_GUARDS_32 = np.float32(_SSIM_GUARDS[0]), np.float32(_SSIM_GUARDS[1])
_QUARTER, _THIRD = np.float32(1 / 4), np.float32(1 / 3)

# Sums may be reordered, so that they vectorise; NaN and infinity keep their meaning.
_FASTMATH = {"reassoc", "nsz", "contract"}


def ssim(generated: np.ndarray, target: np.ndarray) -> float:
    """As `structure.ssim`."""
    height = len(generated)
    scale = np.float32(1 / np.iinfo(generated.dtype).max)
    window = SSIM_WINDOW.astype(np.float32)
    return _ssim(generated.reshape(height, -1), target.reshape(height, -1), window, scale, _SSIM_GUARDS_32)


def ms_ssim(generated: np.ndarray, target: np.ndarray) -> float:
    """As `structure.ms_ssim`, in float64."""
    return float(np.mean([_ms_ssim(generated, target, channel) for channel in np.eye(_CHANNELS)]))


def _ms_ssim(generated: np.ndarray, target: np.ndarray, channel: np.ndarray) -> float:
    planes = sum_and_difference(generated, target, channel / np.iinfo(generated.dtype).max, -1.0)
    product = 1.0
    for octave, weight in enumerate(MS_SSIM_WEIGHTS):
        if octave > 0:
            planes = halved(planes)
        contrast_structure, ssim = ssim_means(planes)
        similarity = ssim if octave == len(MS_SSIM_WEIGHTS) - 1 else contrast_structure
        product *= similarity**weight if similarity > MS_SSIM_FLOOR else 0.0
    return product


def ssim_means(planes: np.ndarray) -> tuple[float, float]:
    """Means over the windows of one channel: of SSIM's contrast-structure, and of SSIM.

    Args:
        planes: float64 [2, H, W], sides of 11 or more: two images' sum less 1, and their difference.
    """
    contrast_structure, ssim = _ssim_means(planes, SSIM_WINDOW, _SSIM_GUARDS)
    return contrast_structure, ssim


def gmsd(generated: np.ndarray, target: np.ndarray) -> float:
    """As `structure.gmsd`."""
    levels_per_step = np.iinfo(generated.dtype).max / 255
    magnitudes = (_gradient_magnitude(image, levels_per_step, RGB2GRAY_WEIGHTS) for image in (generated, target))
    return _deviation(*(magnitude.ravel() for magnitude in magnitudes), np.float32(GMSD_T))


@compiled(nogil=True, fastmath=_FASTMATH, error_model="numpy")
def _ssim(generated, target, window, scale, guards):  # type: ignore[no-untyped-def]
    height, width = generated.shape
    total = np.empty((height, width), np.float32)
    difference = np.empty((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            # The difference is exact in whole levels, and 0 for equal pixels even if products and sums are fused.
            g, t = np.float32(generated[y, x]), np.float32(target[y, x])
            total[y, x] = (g + t) * scale - _ONE
            difference[y, x] = (g - t) * scale
    _, ssim, windows = _ssim_sums(total, difference, window, guards, _CHANNELS)
    return ssim / windows


@compiled(nogil=True, fastmath=_FASTMATH, error_model="numpy")
def _ssim_means(planes, window, guards):  # type: ignore[no-untyped-def]
    contrast_structure, ssim, windows = _ssim_sums(planes[0], planes[1], window, guards, 1)
    return contrast_structure / windows, ssim / windows


@numba.njit(nogil=True, fastmath=_FASTMATH, error_model="numpy")
def _ssim_sums(total, difference, window, guards, channels):  # type: ignore[no-untyped-def]
    """Sums of contrast-structure and of SSIM over the windows of [H, W * channels], and how many they are.

    They are computed in the type of the arguments.
    """
    luminance_guard, contrast_guard = guards
    height, width = total.shape
    taps = len(window)
    inside = width - (taps - 1) * channels
    # Means of s, d, s², d² over the windows: down, then across.
    down = np.empty((4, width), total.dtype)
    mean = np.empty((4, inside), total.dtype)
    contrast_structure, ssim = 0.0, 0.0
    for y in range(height - taps + 1):
        down[:] = 0
        for tap in range(taps):
            weight = window[tap]
            for x in range(width):
                s, d = total[y + tap, x], difference[y + tap, x]
                down[0, x] += weight * s
                down[1, x] += weight * d
                down[2, x] += weight * s * s
                down[3, x] += weight * d * d
        mean[:] = 0
        for tap in range(taps):
            weight = window[tap]
            shift = tap * channels
            for x in range(inside):
                mean[0, x] += weight * down[0, x + shift]
                mean[1, x] += weight * down[1, x + shift]
                mean[2, x] += weight * down[2, x + shift]
                mean[3, x] += weight * down[3, x + shift]
        row_contrast_structure, row_ssim = np.float32(0), np.float32(0)
        for x in range(inside):
            square_difference = mean[1, x] * mean[1, x]
            variance_total = mean[2, x] - mean[0, x] * mean[0, x]
            variance_difference = mean[3, x] - square_difference
            mean_total = mean[0, x] + _ONE
            luminance = _TWO * square_difference / (mean_total * mean_total + square_difference + luminance_guard)
            contrast = _TWO * variance_difference / (variance_total + variance_difference + contrast_guard)
            row_contrast_structure += _ONE - contrast
            row_ssim += (_ONE - luminance) * (_ONE - contrast)
        contrast_structure += row_contrast_structure
        ssim += row_ssim
    return contrast_structure, ssim, (height - taps + 1) * inside


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
        weighted = red * pixels[x, 0] + green * pixels[x, 1] + blue * pixels[x, 2]
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
