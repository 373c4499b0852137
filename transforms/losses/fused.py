"""LPIPS' distance head for CPU scoring: one pass over the raw feature maps.

As TensorFlow ops the head (casts, squares, sums, divisions over maps of H·W·64 numbers) takes as long as half the
network. Here each pixel's channels are read once from memory, as they came out of the network, and everything else
happens in registers and the innermost cache. `perceptual.lpips_vgg` is the definition; a test holds the two equal.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor

import numba
import numpy as np

from transforms.losses.perceptual import LPIPS_EPSILON

_EPSILON = np.float32(LPIPS_EPSILON)
_ONE = np.float32(1)
_ZERO = np.float32(0)

# Sums may be reordered, so that they vectorise; NaN and infinity keep their meaning. Products are not fused with the
# difference of two of them: of equal features it would be the rounding error of one, not 0.
_FASTMATH = {"reassoc", "nsz"}


@numba.njit(nogil=True, fastmath=_FASTMATH, inline="always")
def _float32(bits):  # type: ignore[no-untyped-def]
    """A bfloat16 given by its 16 bits: the upper half of a float32."""
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@numba.njit(nogil=True, fastmath=_FASTMATH, inline="always")
def _same(value):  # type: ignore[no-untyped-def]
    return value


def _distance_of(read):  # type: ignore[no-untyped-def]
    @numba.njit(nogil=True, fastmath=_FASTMATH, error_model="numpy")
    def distance(generated, target, weights):  # type: ignore[no-untyped-def]
        pixels, channels = generated.shape
        total = 0.0
        for pixel in range(pixels):
            generated_square = _ZERO
            target_square = _ZERO
            for channel in range(channels):
                g = read(generated[pixel, channel])
                t = read(target[pixel, channel])
                generated_square += g * g
                target_square += t * t
            generated_scale = _ONE / (np.sqrt(generated_square) + _EPSILON)
            target_scale = _ONE / (np.sqrt(target_square) + _EPSILON)
            weighted = _ZERO
            for channel in range(channels):
                g = read(generated[pixel, channel]) * generated_scale
                t = read(target[pixel, channel]) * target_scale
                weighted += weights[channel] * (g - t) * (g - t)
            total += weighted
        return total / pixels

    return distance


_DISTANCE = {np.dtype(np.uint16): _distance_of(_float32), np.dtype(np.float32): _distance_of(_same)}


def lpips_vgg(features: Mapping[str, np.ndarray], heads: Mapping[str, np.ndarray], executor: Executor) -> np.ndarray:
    """LPIPS of B pairs.

    Args:
        features: per layer [2B, h, w, C], the generated images first, then their targets in the same order: float32,
            or bfloat16 as its bits in uint16.
        heads: per layer the weights of its channels, float32 [C].
        executor: threads for the pairs; the kernel releases the interpreter lock.

    Returns:
        float32 [B].
    """
    layers: Sequence[str] = tuple(heads)
    flat = {layer: features[layer].reshape(len(features[layer]), -1, features[layer].shape[-1]) for layer in layers}
    pairs = len(flat[layers[0]]) // 2

    def distance(pair: int) -> float:
        maps = ((flat[layer][pair], flat[layer][pairs + pair], heads[layer]) for layer in layers)
        return sum(_DISTANCE[generated.dtype](generated, target, weights) for generated, target, weights in maps)

    return np.fromiter(executor.map(distance, range(pairs)), np.float32, count=pairs)
