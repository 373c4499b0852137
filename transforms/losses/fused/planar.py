"""Losses on a network's features of one pair, where every channel is a row: float32 [C, H·W], as ncnn returns them.

`perceptual` defines them. Each is made of sums that add up over the parts of a picture, so that a large one can come in
tiles. One thread computes a pair; where NumPy and numba do the work they release the interpreter lock.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from transforms.losses.constants import DISTS_C1, DISTS_C2, LPIPS_EPSILON
from transforms.losses.levels import full_range
from transforms.worker.compiled import compiled

_EPSILON = np.float32(LPIPS_EPSILON)
_ONE, _ZERO = np.float32(1), np.float32(0)
# Pixels at a time: both images' features of a block stay in a core's cache between the two passes over them.
_BLOCK = 256
# Positions whose products are added up in float32: more lose digits.
_PRODUCTS_AT_ONCE = 2**14

# Sums may be reordered, so that they vectorise; NaN and infinity keep their meaning.
_FASTMATH = {"reassoc", "nsz", "contract"}

# By layer [C, H·W], all float32.
Maps = Mapping[str, np.ndarray]
# By layer, numbers and float64 arrays that add up over the parts of a picture.
Sums = Mapping[str, tuple[Any, ...]]


class PlanarPair(NamedTuple):
    """A pair, or the part of it in a tile, as a kernel sees it; compare `pair.Pair`.

    Attributes:
        generated: [H, W, 3] RGB: uint8 or uint16 of full range, or float32 in [0, 1].
        target: as `generated`.
        generated_features: of the layers that the loss compares, in their order.
        target_features: as `generated_features`.
        weights: what the network's weights file holds for the losses on it.
    """

    generated: np.ndarray
    target: np.ndarray
    generated_features: Maps
    target_features: Maps
    weights: Maps


class PlanarLoss(NamedTuple):
    """A loss by sums over positions.

    Attributes:
        sums: those of a part of a picture.
        value: of a whole picture, from the sums of all its parts and `PlanarPair.weights`.
    """

    sums: Callable[[PlanarPair], Sums]
    value: Callable[[Sums, Maps], float]


def added(one: Sums, other: Sums) -> Sums:
    """The sums of two parts of a picture together; a layer may be missing from one of them."""
    both = {
        layer: tuple(a + b for a, b in zip(one[layer], other[layer], strict=True)) for layer in one if layer in other
    }
    return {**one, **other, **both}


def _lpips_sums(pair: PlanarPair) -> Sums:
    return {
        layer: (_unit_distance(maps, pair.target_features[layer], pair.weights[layer], _EPSILON), maps.shape[1])
        for layer, maps in pair.generated_features.items()
    }


def _square_sums(pair: PlanarPair) -> Sums:
    return {
        layer: (_squares(maps, pair.target_features[layer]), maps.size)
        for layer, maps in pair.generated_features.items()
    }


def _sum_of_means(sums: Sums, weights: Maps) -> float:
    return sum(total / count for total, count in sums.values())


def _style_sums(pair: PlanarPair) -> Sums:
    return {
        layer: (_products(maps), _products(pair.target_features[layer]), maps.shape[1])
        for layer, maps in pair.generated_features.items()
    }


def _style_value(sums: Sums, weights: Maps) -> float:
    return float(sum(np.mean(np.square((g - t) / pixels)) for g, t, pixels in sums.values()))


def _products(maps: np.ndarray) -> np.ndarray:
    """The sums of the products of every two channels, float64 [C, C]."""
    parts = (maps[:, start : start + _PRODUCTS_AT_ONCE] for start in range(0, maps.shape[1], _PRODUCTS_AT_ONCE))
    return sum(((part @ part.T).astype(np.float64) for part in parts), np.zeros((len(maps), len(maps))))


def _dists_sums(pair: PlanarPair) -> Sums:
    stages = {"image": (_planes(pair.generated), _planes(pair.target))} | {
        layer: (maps, pair.target_features[layer]) for layer, maps in pair.generated_features.items()
    }
    return {stage: (_moments(*maps), maps[0].shape[1]) for stage, maps in stages.items()}


def _dists_value(sums: Sums, weights: Maps) -> float:
    total = 0.0
    for stage, (moments, pixels) in sums.items():
        means = moments[:3] / pixels
        centred = np.maximum(moments[3:] - moments[:3] * means, 0)
        mean_g, mean_t, mean_d = np.square(means)
        texture = mean_d / (mean_g + mean_t + DISTS_C1)
        structure = centred[2] / (centred[0] + centred[1] + DISTS_C2 * pixels)
        alpha, beta = weights[stage].astype(np.float64)
        total += float(np.sum(alpha * texture + beta * structure))
    return total


def _planes(image: np.ndarray) -> np.ndarray:
    """An image as `perceptual.dists` compares it: float32 [3, H·W] in [0, 1]."""
    return np.ascontiguousarray((image.astype(np.float32) / np.float32(full_range(image))).reshape(-1, 3).T)


# As `perceptual.lpips`.
lpips = PlanarLoss(_lpips_sums, _sum_of_means)
# As `perceptual.feature_mse`.
feature_mse = PlanarLoss(_square_sums, _sum_of_means)
# As `perceptual.style`.
style = PlanarLoss(_style_sums, _style_value)
# As `perceptual.dists`.
dists = PlanarLoss(_dists_sums, _dists_value)


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
    return total


@compiled(nogil=True, fastmath=_FASTMATH, error_model="numpy")
def _squares(generated, target):  # type: ignore[no-untyped-def]
    """The sum of the squared differences."""
    channels, pixels = generated.shape
    total = 0.0
    for channel in range(channels):
        row = _ZERO
        for pixel in range(pixels):
            d = generated[channel, pixel] - target[channel, pixel]
            row += d * d
        total += row
    return total


@compiled(nogil=True, fastmath=_FASTMATH, error_model="numpy")
def _moments(generated, target):  # type: ignore[no-untyped-def]
    """The sums of g, t and g - t, and of their squares, for every channel: float64 [6, C]."""
    channels, pixels = generated.shape
    sums = np.zeros((6, channels))
    for channel in range(channels):
        sum_g, sum_t, sum_d, squares_g, squares_t, squares_d = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for pixel in range(pixels):
            g, t = np.float64(generated[channel, pixel]), np.float64(target[channel, pixel])
            d = g - t
            sum_g += g
            sum_t += t
            sum_d += d
            squares_g += g * g
            squares_t += t * t
            squares_d += d * d
        sums[0, channel], sums[1, channel], sums[2, channel] = sum_g, sum_t, sum_d
        sums[3, channel], sums[4, channel], sums[5, channel] = squares_g, squares_t, squares_d
    return sums
