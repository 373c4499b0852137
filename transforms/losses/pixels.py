"""Losses of single pixels.

Every loss takes `generated` and `target`, float32 RGB [B, H, W, 3] in [0, 1], and returns float32 [B]: one
number per pair, reduced over that pair's own height, width and channels. No size of image is too small.
"""

import math

import tensorflow as tf

CHARBONNIER_EPSILON = 1e-3


def mean_per_pair(values: tf.Tensor) -> tf.Tensor:
    """Mean of maps [B, H, W, C] over everything but the pair: [B]."""
    return tf.reduce_mean(values, axis=[1, 2, 3])


def mae(generated: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Mean absolute error, in [0, 1]."""
    return mean_per_pair(tf.abs(generated - target))


def mse(generated: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Mean squared error, in [0, 1]."""
    return mean_per_pair(tf.math.squared_difference(generated, target))


def psnr(generated: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Peak signal-to-noise ratio in decibels for a peak of 1, in [0, inf]; higher is better.

    An identical pair scores +inf, and its gradient is not finite: minimize `mse`, which ranks pairs alike.
    """
    return -10.0 / math.log(10.0) * tf.math.log(mse(generated, target))


def charbonnier(generated: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Charbonnier penalty, a smooth absolute error: mean sqrt(d² + eps²) with eps 0.001, in [0.001, 1.0001].

    An identical pair scores eps, not 0: that is the formula of the papers, and the values compare with theirs.

    References:
        Charbonnier et al. 1994, "Two deterministic half-quadratic regularization algorithms".
        Lai et al. 2017, "Deep Laplacian pyramid networks for fast and accurate super-resolution".
    """
    difference = generated - target
    return mean_per_pair(tf.sqrt(tf.square(difference) + CHARBONNIER_EPSILON**2))
