"""Losses of local structure: SSIM, MS-SSIM and GMSD.

Every loss takes a batch of pairs and returns float32 [B], one number per pair.
"""

import numpy as np
import tensorflow as tf

from transforms.losses.constants import (
    GMSD_T,
    LUMA_OFFSET,
    MS_SSIM_FLOOR,
    MS_SSIM_WEIGHTS,
    RGB2GRAY_WEIGHTS,
    SSIM_C1,
    SSIM_C2,
    SSIM_WINDOW,
)
from transforms.losses.edges import CENTRAL_DIFFERENCE, filter_across, filter_down
from transforms.losses.pair import Pair
from transforms.losses.pixels import luma
from transforms.losses.reductions import Reductions

PREWITT_SMOOTH = np.full(3, 1 / 3, np.float32)


def ssim(pair: Pair) -> tf.Tensor:
    """Structural similarity in RGB, mean over pixels and channels, in [-1, 1]; sides of 11 pixels or more.

    11x11 Gaussian window of sigma 1.5 inside the image, K1 0.01, K2 0.03: equal to `tf.image.ssim`. Higher is
    better; an identical pair scores exactly 1.

    Reference: Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity".
    """
    return _mean_ssim(pair, pair.over)


def ssim_map(pair: Pair) -> tf.Tensor:
    """1 - SSIM of every window inside the image, [B, H - 10, W - 10] in [0, 2]."""
    return _dissimilarity(pair)


def ssim_y(pair: Pair) -> tf.Tensor:
    """SSIM of the luma of BT.601, in [-1, 1]; sides of 11 pixels or more.

    Super-resolution reports this one: BasicSR's `calculate_ssim` with `test_y_channel`, without rounding the luma.
    Window and constants are those of `ssim`; an identical pair scores exactly 1.
    """
    return _mean_ssim(_bt601(pair), pair.over)


def ssim_y_map(pair: Pair) -> tf.Tensor:
    """1 - `ssim_y` of every window, as `ssim_map`."""
    return _dissimilarity(_bt601(pair))


def ssim_luma(pair: Pair) -> tf.Tensor:
    """SSIM of the luma of MATLAB's `rgb2gray`, rounded to whole levels, in [-1, 1]; sides of 11 pixels or more.

    The convention of the authors' `ssim_index.m`, with the window inside the image and without downsampling; MATLAB's
    own `ssim` repeats the border. Rounding has no gradient, so an objective cannot use it. An identical pair scores
    exactly 1.
    """
    return _mean_ssim(_matlab_luma(pair), pair.over)


def ssim_luma_map(pair: Pair) -> tf.Tensor:
    """1 - `ssim_luma` of every window, as `ssim_map`."""
    return _dissimilarity(_matlab_luma(pair))


def _bt601(pair: Pair) -> Pair:
    return Pair(*(luma(tf.cast(images, tf.float64)) + LUMA_OFFSET for images in (pair.generated, pair.target)))


def _matlab_luma(pair: Pair) -> Pair:
    images = (pair.generated, pair.target)
    return Pair(*(tf.cast(_rounded_luma(side)[..., tf.newaxis], tf.float64) / 255 for side in images))


def _dissimilarity(pair: Pair) -> tf.Tensor:
    luminance, contrast_structure = _ssim_maps(*_sum_and_difference(pair))
    return 1 - tf.reduce_mean(luminance * contrast_structure, axis=-1)


def _mean_ssim(pair: Pair, over: Reductions) -> tf.Tensor:
    luminance, contrast_structure = _ssim_maps(*_sum_and_difference(pair))
    return tf.cast(over.mean(luminance * contrast_structure), tf.float32)


def ms_ssim(pair: Pair) -> tf.Tensor:
    """SSIM over five octaves, in [0, 1]; sides of 161 pixels or more.

    Equal to `tf.image.ssim_multiscale`, but with a finite gradient: a channel whose mean contrast-structure is
    not positive at some octave adds neither value nor gradient. Higher is better; an identical pair scores
    exactly 1.

    Reference: Wang, Simoncelli and Bovik 2003, "Multiscale structural similarity for image quality assessment".
    """
    total, difference = _sum_and_difference(pair)
    product = 1.0
    for octave, weight in enumerate(MS_SSIM_WEIGHTS):
        if octave > 0:
            # SAME averages only the pixels inside, as if an odd height repeated its last row.
            total = tf.nn.avg_pool2d(total, 2, 2, "SAME")
            difference = tf.nn.avg_pool2d(difference, 2, 2, "SAME")
        luminance, similarity = _ssim_maps(total, difference)
        if octave == len(MS_SSIM_WEIGHTS) - 1:
            similarity *= luminance
        product *= _positive_power(pair.over.channel_means(similarity, stride=2**octave), weight)
    return tf.cast(tf.reduce_mean(product, axis=1), tf.float32)


def gmsd(pair: Pair) -> tf.Tensor:
    """Gradient magnitude similarity deviation, in [0, 0.58]; sides of 3 pixels or more.

    The convention of the authors' MATLAB code: luma of 0..255 rounded to whole numbers, 2x2 mean of every
    second pixel, Prewitt / 3 with zeros around, T = 170, standard deviation over N - 1. Ports that do not
    round differ up to two-fold on nearly identical pairs. Rounding has no gradient, so an objective cannot use it.

    Reference: Xue et al. 2014, "Gradient magnitude similarity deviation".
    """
    maps = _halve(tf.stack([_rounded_luma(pair.generated), _rounded_luma(pair.target)], axis=-1))
    dy = filter_across(filter_down(maps, CENTRAL_DIFFERENCE, "SAME"), PREWITT_SMOOTH, "SAME")
    dx = filter_down(filter_across(maps, CENTRAL_DIFFERENCE, "SAME"), PREWITT_SMOOTH, "SAME")
    magnitude = tf.sqrt(tf.square(dy) + tf.square(dx))
    a, b = magnitude[..., 0], magnitude[..., 1]
    # (2ab + T) / (a² + b² + T) is 1 minus this. The deviation is the same without the 1; an identical pair gives 0.
    dissimilarity = tf.math.squared_difference(a, b) / (tf.square(a) + tf.square(b) + GMSD_T)
    _, squares, pixels = pair.over.moments(dissimilarity, stride=2)
    return tf.cast(tf.sqrt(squares / (pixels - 1)), tf.float32)


def _sum_and_difference(pair: Pair) -> tuple[tf.Tensor, tf.Tensor]:
    """In float64: the variance of a flat window is a small difference of large squares."""
    generated, target = (tf.cast(images, tf.float64) for images in (pair.generated, pair.target))
    return generated + target, generated - target


def _ssim_maps(total: tf.Tensor, difference: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """SSIM's luminance and contrast-structure terms at every window inside the image: [B, H - 10, W - 10, C].

    With s = x + y and d = x - y the paper's terms are

        (2 mx my + C1) / (mx² + my² + C1)       = 1 - 2 md² / (ms² + md² + 2 C1)
        (2 cov(x, y) + C2) / (vx + vy + C2)     = 1 - 2 vd / (vs + vd + 2 C2)

    The right-hand sides keep their digits on near-identical pairs, where the left-hand ones divide nearly equal
    numbers. At d = 0 their value is exactly 1 and their gradient exactly 0.
    """
    maps = tf.concat([total, difference, tf.square(total), tf.square(difference)], axis=-1)
    mean_total, mean_difference, *squares = tf.split(_window_mean(maps), 4, axis=-1)
    square_total, square_difference = tf.square(mean_total), tf.square(mean_difference)
    variance_total, variance_difference = squares[0] - square_total, squares[1] - square_difference
    luminance = 1 - 2 * square_difference / (square_total + square_difference + 2 * SSIM_C1)
    contrast_structure = 1 - 2 * variance_difference / (variance_total + variance_difference + 2 * SSIM_C2)
    return luminance, contrast_structure


def _window_mean(images: tf.Tensor) -> tf.Tensor:
    """Gaussian-weighted mean of every window inside the image: [B, H - 10, W - 10, C]."""
    return filter_across(filter_down(images, SSIM_WINDOW), SSIM_WINDOW)


def _positive_power(values: tf.Tensor, exponent: float) -> tf.Tensor:
    """values ** exponent where positive, 0 elsewhere; the gradient is finite everywhere."""
    powers = tf.pow(tf.maximum(values, MS_SSIM_FLOOR), exponent)
    return tf.where(values > MS_SSIM_FLOOR, powers, 0.0)


def _rounded_luma(images: tf.Tensor) -> tf.Tensor:
    """Luma [B, H, W] of 0..255 in whole numbers, halves up.

    In float64, because float32 rounds a few pixels of a photograph the other way.
    """
    # 255 * (k / 255) is k again in float32: 8-bit images arrive at MATLAB's own integers.
    levels = tf.cast(255.0 * images, tf.float64)
    luma = tf.tensordot(levels, tf.constant(RGB2GRAY_WEIGHTS, tf.float64), axes=1)
    return tf.cast(tf.floor(luma + 0.5), tf.float32)


def _halve(maps: tf.Tensor) -> tf.Tensor:
    """2x2 means of every second pixel of [B, H, W, C], as MATLAB's conv2(..., 'same')(1:2:end, 1:2:end).

    An odd side is rounded up, and its last mean counts the zeros outside the image.
    """
    height, width = tf.shape(maps)[1], tf.shape(maps)[2]
    even = tf.pad(maps, [[0, 0], [0, height % 2], [0, width % 2], [0, 0]])
    return tf.nn.avg_pool2d(even, 2, 2, "VALID")
