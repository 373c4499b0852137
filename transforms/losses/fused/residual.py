"""Losses of the residual, generated minus target, which is exact in whole levels, and of floats to half a unit of
float32's last place. `pixels` and `edges` define them.
"""

import math
from collections.abc import Callable

import numba
import numpy as np

from transforms.losses.levels import full_range
from transforms.worker.compiled import compiled

_CHANNELS = 3
_TWO = np.float32(2)

# Sums may be reordered, so that they vectorise; NaN and infinity keep their meaning.
_FASTMATH = {"reassoc", "nsz", "contract"}


def mae(generated: np.ndarray, target: np.ndarray) -> float:
    """As `pixels.mae`."""
    return _of_rows(_pixel_sums, generated, target)[0] / (generated.size * full_range(generated))


def mse(generated: np.ndarray, target: np.ndarray) -> float:
    """As `pixels.mse`."""
    return _of_rows(_pixel_sums, generated, target)[1] / (generated.size * full_range(generated) ** 2)


def psnr(generated: np.ndarray, target: np.ndarray) -> float:
    """As `pixels.psnr`."""
    error = mse(generated, target)
    return -10 * math.log10(error) if error else math.inf


def sobel_l1(generated: np.ndarray, target: np.ndarray) -> float:
    """As `edges.sobel_l1`."""
    return _of_rows(_sobel_sums, generated, target)[0] / (2 * generated.size * full_range(generated))


def sobel_l2(generated: np.ndarray, target: np.ndarray) -> float:
    """As `edges.sobel_l2`."""
    return _of_rows(_sobel_sums, generated, target)[1] / (2 * generated.size * full_range(generated) ** 2)


def fd_l1(generated: np.ndarray, target: np.ndarray) -> float:
    """As `edges.fd_l1`."""
    down, across, _, _ = _of_rows(_difference_sums, generated, target)
    return (down / generated[1:].size + across / generated[:, 1:].size) / full_range(generated)


def fd_l2(generated: np.ndarray, target: np.ndarray) -> float:
    """As `edges.fd_l2`."""
    _, _, down, across = _of_rows(_difference_sums, generated, target)
    return (down / generated[1:].size + across / generated[:, 1:].size) / full_range(generated) ** 2


def _of_rows(sums: Callable[..., tuple[float, ...]], generated: np.ndarray, target: np.ndarray) -> tuple[float, ...]:
    """The sums that a compiled function makes of the rows of both images."""
    rows = (image.reshape(len(image), -1) for image in (generated, target))
    # Rows are summed in the type of this zero. Levels keep their digits in float32, as the same float a thousand times
    # does not.
    return sums(*rows, np.float32(0) if generated.dtype.kind == "u" else np.float64(0))


@compiled(nogil=True, fastmath=_FASTMATH, error_model="numpy")
def _pixel_sums(generated, target, zero):  # type: ignore[no-untyped-def]
    """Sums of |d| and d²."""
    absolute, squared = 0.0, 0.0
    for y in range(generated.shape[0]):
        row_absolute, row_squared = zero, zero
        for x in range(generated.shape[1]):
            d = np.float32(generated[y, x]) - np.float32(target[y, x])
            row_absolute += abs(d)
            row_squared += d * d
        absolute += row_absolute
        squared += row_squared
    return absolute, squared


@compiled(nogil=True, fastmath=_FASTMATH, error_model="numpy")
def _difference_sums(generated, target, zero):  # type: ignore[no-untyped-def]
    """Sums of |Dy d|, |Dx d|, (Dy d)², (Dx d)² over their valid pixels."""
    residual = _residual(generated, target)
    height, width = residual.shape
    down, across, down_squared, across_squared = 0.0, 0.0, 0.0, 0.0
    for y in range(height):
        row, squared = zero, zero
        for x in range(width - _CHANNELS):
            difference = residual[y, x + _CHANNELS] - residual[y, x]
            row += abs(difference)
            squared += difference * difference
        across += row
        across_squared += squared
        row, squared = zero, zero
        if y + 1 < height:
            for x in range(width):
                difference = residual[y + 1, x] - residual[y, x]
                row += abs(difference)
                squared += difference * difference
        down += row
        down_squared += squared
    return down, across, down_squared, across_squared


@compiled(nogil=True, fastmath=_FASTMATH, error_model="numpy")
def _sobel_sums(generated, target, zero):  # type: ignore[no-untyped-def]
    """Sums over both directions of |Sobel(d)| and Sobel(d)², reflected border."""
    residual = _residual(generated, target)
    height, width = residual.shape
    slope, smooth = np.empty(width, np.float32), np.empty(width, np.float32)
    absolute, squared = 0.0, 0.0
    for y in range(height):
        above = residual[y - 1 if y > 0 else 1]
        here = residual[y]
        below = residual[y + 1 if y + 1 < height else height - 2]
        for x in range(width):
            slope[x] = below[x] - above[x]
            smooth[x] = above[x] + _TWO * here[x] + below[x]
        row_absolute, row_squared = zero, zero
        for x in range(_CHANNELS, width - _CHANNELS):
            dy = slope[x - _CHANNELS] + _TWO * slope[x] + slope[x + _CHANNELS]
            dx = smooth[x + _CHANNELS] - smooth[x - _CHANNELS]
            row_absolute += abs(dy) + abs(dx)
            row_squared += dy * dy + dx * dx
        # In the first and the last column the two neighbours are the same pixel, so dx is 0.
        for channel in range(_CHANNELS):
            first = _TWO * (slope[channel] + slope[channel + _CHANNELS])
            last = _TWO * (slope[width - 1 - channel] + slope[width - 1 - channel - _CHANNELS])
            row_absolute += abs(first) + abs(last)
            row_squared += first * first + last * last
        absolute += row_absolute
        squared += row_squared
    return absolute, squared


@numba.njit(nogil=True, fastmath=_FASTMATH, error_model="numpy")
def _residual(generated, target):  # type: ignore[no-untyped-def]
    residual = np.empty(generated.shape, np.float32)
    for y in range(generated.shape[0]):
        for x in range(generated.shape[1]):
            residual[y, x] = np.float32(generated[y, x]) - np.float32(target[y, x])
    return residual
