"""LPIPS' distance head and its gradient: one pass over the raw feature maps, as the network returns them."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from transforms.losses.constants import LPIPS_EPSILON
from transforms.worker.aligned import aligned_empty
from transforms.worker.compiled import compiled

_EPSILON = np.float32(LPIPS_EPSILON)
_ONE, _ZERO = np.float32(1), np.float32(0)

# Sums may be reordered, so that they vectorise; NaN and infinity keep their meaning.
_FASTMATH = {"reassoc", "nsz", "contract"}

# By type of the feature bits, the type of two of them. Reading two neighbouring channels as one integer is faster than
# widening 16 bits one by one.
_PAIR_OF = {np.dtype(np.uint16): np.uint32, np.dtype(np.float32): np.uint64}


def _even(pair: Any) -> Any:
    """The first of two neighbouring channels, as a float32: two bfloat16 come as uint32, two float32 as uint64."""


def _odd(pair: Any) -> Any:
    """As `_even`, the second."""


def _join(even: Any, odd: Any, like: Any) -> Any:
    """Two float32 as neighbouring channels, of the type of `like`; bfloat16 rounded to nearest, halves to even."""


@overload(_even, inline="always")
def _even_of(pair):  # type: ignore[no-untyped-def]
    if pair == types.uint32:
        # A bfloat16 is the upper half of a float32.
        return lambda pair: np.uint32(pair << np.uint32(16)).view(np.float32)
    return lambda pair: np.uint32(pair & np.uint64(0xFFFFFFFF)).view(np.float32)


@overload(_odd, inline="always")
def _odd_of(pair):  # type: ignore[no-untyped-def]
    if pair == types.uint32:
        return lambda pair: np.uint32(pair & np.uint32(0xFFFF0000)).view(np.float32)
    return lambda pair: np.uint32(pair >> np.uint64(32)).view(np.float32)


@overload(_join, inline="always")
def _join_as(even, odd, like):  # type: ignore[no-untyped-def]
    def join_bfloat16(even, odd, like):  # type: ignore[no-untyped-def]
        low, high = np.float32(even).view(np.uint32), np.float32(odd).view(np.uint32)
        low += np.uint32(0x7FFF) + ((low >> np.uint32(16)) & np.uint32(1))
        high += np.uint32(0x7FFF) + ((high >> np.uint32(16)) & np.uint32(1))
        return np.uint32((low >> np.uint32(16)) | (high & np.uint32(0xFFFF0000)))

    def join_float32(even, odd, like):  # type: ignore[no-untyped-def]
        low, high = np.uint64(np.float32(even).view(np.uint32)), np.uint64(np.float32(odd).view(np.uint32))
        return np.uint64(low | (high << np.uint64(32)))

    return join_bfloat16 if like == types.uint32 else join_float32


@compiled(nogil=True, fastmath=_FASTMATH, error_model="numpy")
def _distance(generated, target, even_weights, odd_weights, epsilon):  # type: ignore[no-untyped-def]
    pixels, pairs = generated.shape
    total = 0.0
    for pixel in range(pixels):
        generated_even, generated_odd, target_even, target_odd = _ZERO, _ZERO, _ZERO, _ZERO
        for pair in range(pairs):
            g, t = _even(generated[pixel, pair]), _even(target[pixel, pair])
            generated_even += g * g
            target_even += t * t
            g, t = _odd(generated[pixel, pair]), _odd(target[pixel, pair])
            generated_odd += g * g
            target_odd += t * t
        generated_scale = _ONE / (np.sqrt(generated_even + generated_odd) + epsilon)
        target_scale = _ONE / (np.sqrt(target_even + target_odd) + epsilon)
        # g·s - t·s' as s·(g - t·(s'/s)): for equal features s'/s is exactly 1 and the difference exactly 0, even
        # if the processor fuses product and difference.
        ratio = target_scale / generated_scale
        weighted_even, weighted_odd = _ZERO, _ZERO
        for pair in range(pairs):
            d = _even(generated[pixel, pair]) - _even(target[pixel, pair]) * ratio
            weighted_even += even_weights[pair] * d * d
            d = _odd(generated[pixel, pair]) - _odd(target[pixel, pair]) * ratio
            weighted_odd += odd_weights[pair] * d * d
        total += (weighted_even + weighted_odd) * generated_scale * generated_scale
    return total / pixels


@compiled(nogil=True, fastmath=_FASTMATH, error_model="numpy")
def _gradient(generated, target, even_weights, odd_weights, epsilon, out):  # type: ignore[no-untyped-def]
    """The mean distance, and into `out` its derivative to every generated feature.

    With the length n, s = 1 / (n + epsilon) and r = g - t·(s'/s), a pixel's distance is s² Σ w r², and its
    derivative 2 s² (w r - g · s/n · Σ w r g). For a pixel whose features are all 0 it is taken as 0: the ReLU
    before it lets nothing through.
    """
    pixels, pairs = generated.shape
    share = _ONE / np.float32(pixels)
    total = 0.0
    for pixel in range(pixels):
        generated_even, generated_odd, target_even, target_odd = _ZERO, _ZERO, _ZERO, _ZERO
        for pair in range(pairs):
            g, t = _even(generated[pixel, pair]), _even(target[pixel, pair])
            generated_even += g * g
            target_even += t * t
            g, t = _odd(generated[pixel, pair]), _odd(target[pixel, pair])
            generated_odd += g * g
            target_odd += t * t
        length = np.sqrt(generated_even + generated_odd)
        scale = _ONE / (length + epsilon)
        ratio = (_ONE / (np.sqrt(target_even + target_odd) + epsilon)) / scale
        weighted_even, weighted_odd, along_even, along_odd = _ZERO, _ZERO, _ZERO, _ZERO
        for pair in range(pairs):
            g = _even(generated[pixel, pair])
            d = g - _even(target[pixel, pair]) * ratio
            weighted_even += even_weights[pair] * d * d
            along_even += even_weights[pair] * d * g
            g = _odd(generated[pixel, pair])
            d = g - _odd(target[pixel, pair]) * ratio
            weighted_odd += odd_weights[pair] * d * d
            along_odd += odd_weights[pair] * d * g
        total += (weighted_even + weighted_odd) * scale * scale
        slope, along = _ZERO, _ZERO
        if length > _ZERO:
            slope = share * (scale * scale + scale * scale)
            along = (along_even + along_odd) * scale / length
        for pair in range(pairs):
            g = _even(generated[pixel, pair])
            d = g - _even(target[pixel, pair]) * ratio
            first = slope * (even_weights[pair] * d - along * g)
            g = _odd(generated[pixel, pair])
            d = g - _odd(target[pixel, pair]) * ratio
            out[pixel, pair] = _join(first, slope * (odd_weights[pair] * d - along * g), generated[pixel, pair])
    return total / pixels


def lpips(
    features: Mapping[str, np.ndarray],
    heads: Mapping[str, np.ndarray],
    executor: Executor,
    targets: Sequence[int] | None = None,
) -> dict[str, np.ndarray]:
    """LPIPS of B pairs by layer, as `perceptual.lpips_shares`.

    Args:
        features: per layer [B + T, h, w, C], the generated images first, then the targets: float32, or bfloat16 as its
            bits in uint16. C is even.
        heads: of these layers, and perhaps of others, the weights of their channels, float32 [C].
        executor: its threads take the pairs; the kernel releases the interpreter lock.
        targets: of each pair, the number of its target among the T; None: every pair has its own, in the same order.

    Returns:
        per layer float64 [B].
    """
    layers: Sequence[str] = tuple(features)
    (dtype,) = {features[layer].dtype for layer in layers}
    maps = {k: features[k].reshape(len(features[k]), -1, features[k].shape[-1]).view(_PAIR_OF[dtype]) for k in layers}
    weights = {layer: np.ascontiguousarray(heads[layer].reshape(-1, 2).T) for layer in layers}
    targets = range(len(maps[layers[0]]) // 2) if targets is None else targets
    pairs = len(targets)

    def distances(pair: int, target: int) -> list[float]:
        return [_distance(maps[k][pair], maps[k][pairs + target], *weights[k], _EPSILON) for k in layers]

    shares = np.array([*executor.map(distances, range(pairs), targets)]).reshape(pairs, len(layers))
    return dict(zip(layers, shares.T, strict=True))


def lpips_and_gradient(
    generated: Sequence[np.ndarray],
    target: Sequence[np.ndarray],
    weights: Mapping[str, np.ndarray],
    factor: float,
    executor: Executor,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """LPIPS of B pairs times a factor, and the derivative of each product to its own generated features.

    Args:
        generated: per layer of `weights` [B, h, w, C], float32, or bfloat16 as its bits in uint16. C is even.
        target: as `generated`.
        weights: per layer those of its channels, LPIPS' head, float32 [C].
        factor: the weight of LPIPS in an objective.
        executor: its threads take the pairs; the kernel releases the interpreter lock.

    Returns:
        float32 [B], and per layer an array like that of `generated`.
    """
    (dtype,) = {maps.dtype for maps in (*generated, *target)}
    gradients = [aligned_empty(maps.shape, maps.dtype) for maps in generated]
    # LPIPS is linear in its heads: with the factor in them the maps need not be multiplied.
    heads = (np.ascontiguousarray((np.float32(factor) * head).reshape(-1, 2).T) for head in weights.values())
    layers = [
        (*(maps.reshape(len(maps), -1, maps.shape[-1]).view(_PAIR_OF[dtype]) for maps in layer), head)
        for *layer, head in zip(generated, target, gradients, heads, strict=True)
    ]

    def distance(pair: int) -> float:
        return sum(_gradient(g[pair], t[pair], *head, _EPSILON, out[pair]) for g, t, out, head in layers)

    values = np.fromiter(executor.map(distance, range(len(generated[0]))), np.float32, count=len(generated[0]))
    return values, gradients
