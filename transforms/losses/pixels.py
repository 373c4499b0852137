"""Losses that compare pixel by pixel.

Every loss takes a batch of pairs and returns float32 [B]: one number per pair, reduced over that pair's own height,
width and channels. They are defined for images of any size.
"""

import math

import tensorflow as tf

from transforms.losses.constants import LUMA_WEIGHTS
from transforms.losses.pair import Pair

CHARBONNIER_EPSILON = 1e-3


def mae(pair: Pair) -> tf.Tensor:
    """Mean absolute error, in [0, 1]."""
    return pair.over.mean(tf.abs(pair.generated - pair.target))


def mse(pair: Pair) -> tf.Tensor:
    """Mean squared error, in [0, 1]."""
    return pair.over.mean(tf.math.squared_difference(pair.generated, pair.target))


def psnr(pair: Pair) -> tf.Tensor:
    """Peak signal-to-noise ratio in decibels for a peak of 1, in [0, inf]; higher is better.

    An identical pair scores +inf, and its gradient is not finite. Minimize `mse` instead: it ranks pairs alike.
    """
    return -10.0 / math.log(10.0) * tf.math.log(mse(pair))


def psnr_y(pair: Pair) -> tf.Tensor:
    """PSNR in decibels of the luma of BT.601, peak 255 although luma ends at 235; in [1.3, inf], higher is better.

    Super-resolution reports this one: BasicSR's `calculate_psnr` with `test_y_channel`, without rounding the luma.
    An identical pair scores +inf.
    """
    # In float64: float32 rounds the weights, which shows at the lowest values.
    difference = luma(tf.cast(pair.generated - pair.target, tf.float64))
    return tf.cast(-10.0 / math.log(10.0) * tf.math.log(pair.over.mean(tf.square(difference))), tf.float32)


def luma(images: tf.Tensor) -> tf.Tensor:
    """BT.601's luma Y of [B, H, W, 3] in [0, 1], without its offset of 16 / 255: [B, H, W, 1]."""
    return tf.reduce_sum(images * LUMA_WEIGHTS, axis=-1, keepdims=True)


def power(base: tf.Tensor, exponent: tf.Tensor | float) -> tf.Tensor:
    """base ** exponent where the base is positive, elsewhere 0 with the gradient 0: at 0 the slope may be infinite."""
    positive = base > 0
    return tf.where(positive, tf.pow(tf.where(positive, base, 1.0), exponent), 0.0)


def charbonnier(pair: Pair) -> tf.Tensor:
    """Charbonnier penalty, a smooth absolute error: mean sqrt(d² + eps²) with eps 0.001, in [0.001, 1.0001].

    An identical pair scores eps, not 0, as in the papers, so that values compare with theirs.

    References:
        Charbonnier et al. 1994, "Two deterministic half-quadratic regularization algorithms".
        Lai et al. 2017, "Deep Laplacian pyramid networks for fast and accurate super-resolution".
    """
    return pair.over.mean(tf.sqrt(tf.square(pair.generated - pair.target) + CHARBONNIER_EPSILON**2))
