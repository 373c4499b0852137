"""Losses of image gradients, here called edges: how neighbouring pixels differ.

Every loss takes a batch of pairs and returns float32 [B], one number per pair. The filters are linear, so
edges(generated) - edges(target) is computed as edges(generated - target): half the work, and exactly 0 for an identical
pair.
"""

import numpy as np
import tensorflow as tf

from transforms.losses.pair import Pair

FORWARD_DIFFERENCE = np.array([-1.0, 1.0], np.float32)
CENTRAL_DIFFERENCE = np.array([-1.0, 0.0, 1.0], np.float32)
SOBEL_SMOOTH = np.array([1.0, 2.0, 1.0], np.float32)
OCTAVES = 4


def filter_down(images: tf.Tensor, taps: np.ndarray, padding: str = "VALID") -> tf.Tensor:
    """Correlates every column of [B, H, W, C] with taps [K].

    Returns:
        [B, H - K + 1, W, C] with `VALID` padding, [B, H, W, C] with zeros around with `SAME`.
    """
    return _filter(images, taps[:, np.newaxis], padding)


def filter_across(images: tf.Tensor, taps: np.ndarray, padding: str = "VALID") -> tf.Tensor:
    """Correlates every row of [B, H, W, C] with taps [K], as `filter_down` does every column."""
    return _filter(images, taps[np.newaxis, :], padding)


def sobel_l1(pair: Pair) -> tf.Tensor:
    """Mean absolute difference of Sobel edges, in [0, 8]; sides of 2 pixels or more.

    The convention of `tf.image.sobel_edges`: unnormalised kernels, REFLECT border, mean over both directions.
    It does not see the finest checkerboard: minimized on its own, it leaves one behind.

    Reference: Sobel and Feldman 1968, "A 3x3 isotropic gradient operator for image processing".
    """
    dy, dx = _sobel(pair.generated - pair.target)
    return (pair.over.mean(tf.abs(dy)) + pair.over.mean(tf.abs(dx))) / 2


def sobel_l2(pair: Pair) -> tf.Tensor:
    """Mean squared difference of Sobel edges, in [0, 64]; conventions as in `sobel_l1`."""
    dy, dx = _sobel(pair.generated - pair.target)
    return (pair.over.mean(tf.square(dy)) + pair.over.mean(tf.square(dx))) / 2


def fd_l1(pair: Pair) -> tf.Tensor:
    """Mean absolute forward difference of the residual, down plus across, in [0, 4]; sides of 2 or more.

    Each direction is averaged over its own valid pixels: there are fewer vertical differences than rows.
    """
    return _fd_l1(pair.generated - pair.target, pair)


def fd_l2(pair: Pair) -> tf.Tensor:
    """Mean squared forward difference of the residual, down plus across, in [0, 8]; see `fd_l1`."""
    dy, dx = _forward_differences(pair.generated - pair.target)
    return pair.over.mean(tf.square(dy)) + pair.over.mean(tf.square(dx))


def gdl(pair: Pair) -> tf.Tensor:
    """Gradient difference loss, exponent 1: mean ||D generated| - |D target||, in [0, 2]; sides of 2 or more.

    It compares the strength of edges, not their sign: an image and its negative score 0.

    Reference: Mathieu, Couprie and LeCun 2016, "Deep multi-scale video prediction beyond mean square error".
    The sums of the paper are means here, so that the value does not grow with the image.
    """
    generated_dy, generated_dx = _forward_differences(pair.generated)
    target_dy, target_dx = _forward_differences(pair.target)
    dy = tf.abs(generated_dy) - tf.abs(target_dy)
    dx = tf.abs(generated_dx) - tf.abs(target_dx)
    return pair.over.mean(tf.abs(dy)) + pair.over.mean(tf.abs(dx))


def multiscale_fd(pair: Pair) -> tf.Tensor:
    """Sum of `fd_l1` over four octaves, every 1st, 2nd, 4th and 8th pixel, in [0, 16]; sides of 9 or more.

    Reference: Ranftl et al. 2022, "Towards robust monocular depth estimation" (MiDaS), the gradient matching
    term.
    """
    residual = pair.generated - pair.target
    total = _fd_l1(residual, pair)
    for octave in range(1, OCTAVES):
        # Pooling over one pixel takes every second pixel; its gradient is four times as fast as a strided slice's.
        residual = tf.nn.avg_pool2d(residual, ksize=1, strides=2, padding="VALID")
        total += _fd_l1(residual, pair, stride=2**octave)
    return total


def tv(pair: Pair) -> tf.Tensor:
    """Anisotropic total variation of the generated image, as a mean, in [0, 2]; sides of 2 or more.

    It measures how rough the generated image is; the target plays no part.

    Reference: Rudin, Osher and Fatemi 1992, "Nonlinear total variation based noise removal algorithms".
    """
    return _fd_l1(pair.generated, pair)


def _fd_l1(images: tf.Tensor, pair: Pair, stride: int = 1) -> tf.Tensor:
    dy, dx = _forward_differences(images)
    return pair.over.mean(tf.abs(dy), stride) + pair.over.mean(tf.abs(dx), stride)


def _forward_differences(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Differences to the pixel below, [B, H - 1, W, C], and to the pixel on the right, [B, H, W - 1, C]."""
    return filter_down(images, FORWARD_DIFFERENCE), filter_across(images, FORWARD_DIFFERENCE)


def _sobel(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Vertical and horizontal Sobel edges, each of the shape of `images`."""
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT")
    dy = filter_across(filter_down(padded, CENTRAL_DIFFERENCE), SOBEL_SMOOTH)
    dx = filter_down(filter_across(padded, CENTRAL_DIFFERENCE), SOBEL_SMOOTH)
    return dy, dx


def _filter(images: tf.Tensor, kernel: np.ndarray, padding: str) -> tf.Tensor:
    """Correlates every channel with one kernel [K, L].

    On a CPU a depthwise convolution is faster than shifted slices, and its gradient several times as fast.
    Images must not be smaller than the kernel: TensorFlow would return unset memory, without an error.
    """
    per_channel = np.repeat(kernel[:, :, np.newaxis, np.newaxis], images.shape[-1], axis=2)
    per_channel = tf.cast(per_channel, images.dtype)
    return tf.nn.depthwise_conv2d(images, per_channel, strides=[1, 1, 1, 1], padding=padding)
