"""Losses on a network's features: LPIPS, DISTS, feature MSE, style.

Every loss takes a batch of pairs and returns float32 [B], one number per pair. Features may be bfloat16 or float16;
everything after them is float32.

No function here multiplies tensors of more than two axes on a CPU: with several threads, TensorFlow 2.21 gets other
numbers at every call for some shapes, or fails. XLA gets them right.
"""

import math

import numpy as np
import tensorflow as tf

from transforms.losses.constants import DISTS_C1, DISTS_C2, LPIPS_EPSILON
from transforms.losses.pair import Pair


def lpips(pair: Pair) -> tf.Tensor:
    """LPIPS v0.1: sum over layers of the mean over H, W of w · (ĝ - t̂)², features of unit length.

    `pair.weights` holds, by layer, the non-negative weights w of its channels, float32 [C].

    Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, https://arxiv.org/abs/1801.03924.
    """
    return tf.add_n(list(lpips_shares(pair).values()))


def lpips_shares(pair: Pair) -> dict[str, tf.Tensor]:
    """The terms of `lpips` by layer, each float32 [B]."""
    maps = _lpips_maps(pair)
    return {layer: pair.over.mean_of_features(maps[layer], pair.strides.get(layer, 1)) for layer in maps}


def lpips_map(pair: Pair) -> tf.Tensor:
    """LPIPS at every pixel, float32 [B, H, W], at least 0: its layers' distances at the size of the picture, added up.

    Bilinear, as the original's `spatial=True`.
    """
    size = tf.shape(pair.generated)[1:3]
    return tf.add_n([tf.image.resize(maps[..., tf.newaxis], size)[..., 0] for maps in _lpips_maps(pair).values()])


def _lpips_maps(pair: Pair) -> dict[str, tf.Tensor]:
    """The distances by layer, each [B, h, w]."""
    distances = compiled_distances if pair.compiled else _distances
    return {
        layer: distances(generated, pair.target_features[layer], pair.weights[layer])
        for layer, generated in pair.generated_features.items()
    }


def dists(pair: Pair) -> tf.Tensor:
    """DISTS: how the texture (mean) and the structure (covariance) of every channel differ, weighted, in [0, 2].

    `pair.weights` holds, for the image itself and by layer, alpha and beta of the channels, float32 [2, C]. The paper's
    1 - (2 mx my + c1) / (mx² + my² + c1) is computed as (mx - my)² / (mx² + my² + c1), and its twin for the covariance
    with the variance of x - y, which keeps the digits of nearly identical pairs.

    Ding et al., Image Quality Assessment: Unifying Structure and Texture Similarity, https://arxiv.org/abs/2004.07728.
    """
    total = 0.0
    stages = {
        "image": (pair.generated, pair.target),
        **dict(zip(pair.generated_features, _by_layer(pair), strict=True)),
    }
    for stage, (generated, target) in stages.items():
        generated, target = _float(generated), _float(target)
        (mean_g, squares_g, pixels), (mean_t, squares_t, _), (mean_d, squares_d, _) = (
            pair.over.moments(maps) for maps in (generated, target, generated - target)
        )
        texture = tf.square(mean_d) / (tf.square(mean_g) + tf.square(mean_t) + DISTS_C1)
        structure = squares_d / (squares_g + squares_t + DISTS_C2 * pixels)
        alpha, beta = (tf.cast(weight, texture.dtype) for weight in pair.weights[stage])
        total += tf.reduce_sum(alpha * texture + beta * structure, axis=-1)
    return tf.cast(total, tf.float32)


def feature_mse(pair: Pair) -> tf.Tensor:
    """Feature MSE: sum over the layers of the mean over H, W, C of (g - t)².

    Johnson et al., Perceptual Losses for Real-Time Style Transfer and Super-Resolution, https://arxiv.org/abs/1603.08155.
    """
    return tf.add_n([pair.over.mean_of_features(tf.square(_float(g) - _float(t)), 1) for g, t in _by_layer(pair)])


def style(pair: Pair) -> tf.Tensor:
    """Style: sum over the layers of the mean square of the difference of the Gram matrices FᵀF / (H·W).

    Gatys et al., Image Style Transfer Using Convolutional Neural Networks, CVPR 2016, with Johnson's normalisation.
    """
    grams = [[pair.over.products(_float(features)) for features in layer] for layer in _by_layer(pair)]
    return tf.add_n([tf.reduce_mean(tf.square(g - t), axis=(1, 2)) for g, t in grams])


def _by_layer(pair: Pair) -> list[tuple[tf.Tensor, tf.Tensor]]:
    return [(generated, pair.target_features[layer]) for layer, generated in pair.generated_features.items()]


def _float(features: tf.Tensor) -> tf.Tensor:
    return tf.cast(features, tf.float32)


def _distances(generated: tf.Tensor, target: tf.Tensor, weights: np.ndarray) -> tf.Tensor:
    """The weighted squares of the differences of unit vectors, which are the last axis."""
    difference = _unit_length(generated) - _unit_length(target)
    return tf.reduce_sum(tf.square(difference) * weights, axis=-1)


_distances_by_xla = tf.function(_distances, jit_compile=True, autograph=False)


def compiled_distances(generated: tf.Tensor, target: tf.Tensor, weights: np.ndarray) -> tf.Tensor:
    """LPIPS' distance of every position in one pass: on a GPU the operations one by one take as long as the network.

    XLA compiles anew for every shape, so positions are filled up to a power of two.

    Args:
        generated: features [B, h, w, C].
        target: as `generated`.
        weights: of the channels, float32 [C].

    Returns:
        float32 [B, h, w].
    """
    shape = tf.shape(generated)[:-1]
    positions = tf.reduce_prod(shape)
    # Rounding must not double what is a power of two already.
    exponent = tf.math.ceil(tf.math.log(tf.cast(positions, tf.float64)) / math.log(2) - 1e-9)
    void = tf.bitwise.left_shift(1, tf.cast(exponent, tf.int32)) - positions
    flat = (tf.reshape(maps, [-1, maps.shape[-1]]) for maps in (generated, target))
    filled = (tf.pad(maps, [[0, void], [0, 0]]) for maps in flat)
    return tf.reshape(_distances_by_xla(*filled, weights)[:positions], shape)


def _unit_length(features: tf.Tensor) -> tf.Tensor:
    features = _float(features)
    squares = tf.reduce_sum(tf.square(features), axis=-1, keepdims=True)
    # The square root's slope at 0 is infinite, which makes the gradient NaN, so that a 0 must not reach it.
    positive = squares > 0
    length = tf.where(positive, tf.sqrt(tf.where(positive, squares, 1.0)), 0.0)
    return features / (length + LPIPS_EPSILON)
