"""SSIM and GMSD in few passes. `structure` defines them, and says why their formulas are arranged like this."""

import numpy as np

from transforms.losses.constants import GMSD_T, RGB2GRAY_WEIGHTS, SSIM_C1, SSIM_C2, SSIM_WINDOW
from transforms.worker.compiled import compiled

_CHANNELS = 3
_ONE, _TWO = np.float32(1), np.float32(2)
# Kernels get the constants of `constants.py` as arguments: code on disk is known by the kernel's own file alone.
_SSIM_GUARDS = np.float32(2 * SSIM_C1), np.float32(2 * SSIM_C2)
_QUARTER, _THIRD = np.float32(1 / 4), np.float32(1 / 3)

# Sums may be reordered, so that they vectorise; NaN and infinity keep their meaning.
_FASTMATH = {"reassoc", "nsz", "contract"}


def ssim(generated: np.ndarray, target: np.ndarray) -> float:
    """As `structure.ssim`."""
    height = len(generated)
    scale = np.float32(1 / np.iinfo(generated.dtype).max)
    window = SSIM_WINDOW.astype(np.float32)
    return _ssim(generated.reshape(height, -1), target.reshape(height, -1), window, scale, _SSIM_GUARDS)


def gmsd(generated: np.ndarray, target: np.ndarray) -> float:
    """As `structure.gmsd`."""
    levels_per_step = np.iinfo(generated.dtype).max / 255
    magnitudes = (_gradient_magnitude(image, levels_per_step, RGB2GRAY_WEIGHTS) for image in (generated, target))
    return _deviation(*(magnitude.ravel() for magnitude in magnitudes), np.float32(GMSD_T))


@compiled(nogil=True, fastmath=_FASTMATH, error_model="numpy")
def _ssim(generated, target, window, scale, guards):  # type: ignore[no-untyped-def]
    luminance_guard, contrast_guard = guards
    height, width = generated.shape
    taps = len(window)
    inside = width - (taps - 1) * _CHANNELS
    total = np.empty((height, width), np.float32)
    difference = np.empty((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            # The difference is exact in whole levels, and 0 for equal pixels even if products and sums are fused.
            g, t = np.float32(generated[y, x]), np.float32(target[y, x])
            total[y, x] = (g + t) * scale - _ONE
            difference[y, x] = (g - t) * scale
    # Means of s, d, s², d² over the windows: down, then across.
    down = np.empty((4, width), np.float32)
    mean = np.empty((4, inside), np.float32)
    similarity = 0.0
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
            shift = tap * _CHANNELS
            for x in range(inside):
                mean[0, x] += weight * down[0, x + shift]
                mean[1, x] += weight * down[1, x + shift]
                mean[2, x] += weight * down[2, x + shift]
                mean[3, x] += weight * down[3, x + shift]
        row = np.float32(0)
        for x in range(inside):
            square_difference = mean[1, x] * mean[1, x]
            variance_total = mean[2, x] - mean[0, x] * mean[0, x]
            variance_difference = mean[3, x] - square_difference
            mean_total = mean[0, x] + _ONE
            luminance = _TWO * square_difference / (mean_total * mean_total + square_difference + luminance_guard)
            contrast = _TWO * variance_difference / (variance_total + variance_difference + contrast_guard)
            row += (_ONE - luminance) * (_ONE - contrast)
        similarity += row
    return similarity / ((height - taps + 1) * inside)


# No fast-math from here on: both images of a pair must be rounded alike, so that equal ones stay equal.
@compiled(nogil=True, error_model="numpy")
def _gradient_magnitude(image, levels_per_step, gray):  # type: ignore[no-untyped-def]
    """Prewitt magnitude of the halved luma, zeros around it."""
    height, width, _ = image.shape
    red, green, blue = gray
    halved = np.zeros(((height + 1) // 2 + 2, (width + 1) // 2 + 2), np.float32)
    luma = np.zeros(width + 1, np.float32)
    for y in range(height):
        row = halved[1 + y // 2]
        for x in range(width):
            weighted = red * image[y, x, 0] + green * image[y, x, 1] + blue * image[y, x, 2]
            luma[x] = np.floor(weighted / levels_per_step + 0.5)
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
