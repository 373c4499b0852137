"""Losses on a network's features of one pair, where every channel is a row: float32 [C, H·W], as ncnn returns them.

`perceptual` defines them. One thread computes a pair; where NumPy and numba do the work they release the interpreter
lock.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from transforms.losses.constants import LPIPS_EPSILON
from transforms.worker.compiled import compiled

_EPSILON = np.float32(LPIPS_EPSILON)
_ONE, _ZERO = np.float32(1), np.float32(0)
# Pixels at a time: both images' features of a block stay in a core's cache between the two passes over them.
_BLOCK = 256

# Sums may be reordered, so that they vectorise; NaN and infinity keep their meaning.
_FASTMATH = {"reassoc", "nsz", "contract"}

# By layer [C, H·W], all float32.
Maps = Mapping[str, np.ndarray]


def lpips(generated: Maps, target: Maps, weights: Maps) -> float:
    """As `perceptual.lpips`; `weights` are by layer those of its channels, float32 [C]."""
    return sum(_unit_distance(g, t, weights[layer], _EPSILON) for layer, g, t in _by_layer(generated, target))


def feature_mse(generated: Maps, target: Maps, weights: Maps) -> float:
    """As `perceptual.feature_mse`."""
    return sum(_mean_square(g, t) for _, g, t in _by_layer(generated, target))


def style(generated: Maps, target: Maps, weights: Maps) -> float:
    """As `perceptual.style`."""
    differences = (_gram(g) - _gram(t) for _, g, t in _by_layer(generated, target))
    return float(sum(np.mean(np.square(difference), dtype=np.float64) for difference in differences))


def _by_layer(generated: Maps, target: Maps) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    return ((layer, maps, target[layer]) for layer, maps in generated.items())


def _gram(maps: np.ndarray) -> np.ndarray:
    product: np.ndarray = maps @ maps.T
    return product / np.float32(maps.shape[1])


@compiled(nogil=True, fastmath=_FASTMATH, error_model="numpy")
def _unit_distance(generated, target, weights, epsilon):  # type: ignore[no-untyped-def]
    channels, pixels = generated.shape
    generated_scale, target_scale = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    weighted = np.empty(_BLOCK, np.float32)
    total = 0.0
    for start in range(0, pixels, _BLOCK):
        size = min(_BLOCK, pixels - start)
        generated_scale[:] = _ZERO
        target_scale[:] = _ZERO
        weighted[:] = _ZERO
        for channel in range(channels):
            for pixel in range(size):
                g, t = generated[channel, start + pixel], target[channel, start + pixel]
                generated_scale[pixel] += g * g
                target_scale[pixel] += t * t
        for pixel in range(size):
            generated_scale[pixel] = _ONE / (np.sqrt(generated_scale[pixel]) + epsilon)
            # g·s - t·s' as s·(g - t·(s'/s)): for equal features s'/s is exactly 1 and the difference exactly 0, even
            # if the processor fuses product and difference.
            target_scale[pixel] = _ONE / (np.sqrt(target_scale[pixel]) + epsilon) / generated_scale[pixel]
        for channel in range(channels):
            weight = weights[channel]
            for pixel in range(size):
                d = generated[channel, start + pixel] - target[channel, start + pixel] * target_scale[pixel]
                weighted[pixel] += weight * d * d
        for pixel in range(size):
            total += weighted[pixel] * generated_scale[pixel] * generated_scale[pixel]
    return total / pixels


@compiled(nogil=True, fastmath=_FASTMATH, error_model="numpy")
def _mean_square(generated, target):  # type: ignore[no-untyped-def]
    channels, pixels = generated.shape
    total = 0.0
    for channel in range(channels):
        row = _ZERO
        for pixel in range(pixels):
            d = generated[channel, pixel] - target[channel, pixel]
            row += d * d
        total += row
    return total / generated.size
