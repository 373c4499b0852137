"""SSIMULACRA 2: how much of an image's quality a codec has kept, as libjxl computes it.

Sneyers 2022 and 2023, https://github.com/cloudinary/ssimulacra2. Three error maps in the colours of the eye, XYB, at
six octaves: of structure (SSIM), of edges that only the generated image has, and of edges that it lacks. The arithmetic
is float64, because variances of similar images cancel.
"""

import tensorflow as tf

from transforms.losses.color import linear_rgb
from transforms.losses.pair import Pair
from transforms.losses.pixels import power
from transforms.losses.ssimulacra2_constants import (
    BY_OCTAVES,
    C2,
    CONES,
    CUBIC,
    DARK,
    EXPONENT,
    OCTAVES,
    SMALLEST_SIDE,
    TAPS,
)


def ssimulacra2(pair: Pair) -> tf.Tensor:
    """SSIMULACRA 2 score, at most 100, which an identical pair has; sides of 8 pixels or more.

    About 90 is visually lossless, 70 high and 50 medium quality; bad pairs score below 0. An image of less than 113
    pixels has fewer octaves; libjxl then takes the weights one after the other from the first, and so does this.
    """
    images = [linear_rgb(images) for images in (pair.target, pair.generated)]
    side = tf.reduce_min(tf.shape(pair.generated)[1:3])
    # An octave is computed if the one before was large enough.
    octaves = sum(tf.cast(-(-side // 2 ** max(octave - 1, 0)) >= SMALLEST_SIDE, tf.int32) for octave in range(OCTAVES))
    norms = []
    for octave in range(OCTAVES):
        if octave:
            # SAME averages only the pixels inside, as if an odd height repeated its last row.
            images = [tf.nn.avg_pool2d(image, 2, 2, "SAME") for image in images]
        norms.append(_norms(*map(_xyb, images)))
    error = tf.reduce_sum(tf.stack(norms, axis=1) * tf.gather(BY_OCTAVES, octaves), axis=[1, 2, 3])
    error = sum(factor * error**degree for degree, factor in enumerate(CUBIC, 1))
    return tf.cast(100 - 10 * power(error, EXPONENT), tf.float32)


def _norms(target: tf.Tensor, generated: tf.Tensor) -> tf.Tensor:
    """The norms of the error maps of two images in XYB [B, H, W, 3]: [B, 3, 6], in the order of `BY_OCTAVES`."""
    difference = generated - target
    maps = (target, generated, target**2 + generated**2, difference**2)
    mean_t, mean_g, squares, square_difference = tf.split(_blur(tf.concat(maps, axis=-1)), 4, axis=-1)
    # The definition's 1 - (1 - (mt - mg)²) (2 cov + C2) / (vt + vg + C2), with the variance of the difference: its
    # value and gradient are exactly 0 for an identical pair.
    mean_error = (mean_g - mean_t) ** 2
    variances = squares - mean_t**2 - mean_g**2
    variance_error = (square_difference - mean_error) / (variances + C2)
    structure = tf.nn.relu(mean_error + variance_error - mean_error * variance_error)
    edges = (1 + tf.abs(generated - mean_g)) / (1 + tf.abs(target - mean_t)) - 1
    errors = tf.stack([structure, tf.nn.relu(edges), tf.nn.relu(-edges)], axis=-1)
    return tf.concat([tf.reduce_mean(errors, axis=[1, 2]), power(tf.reduce_mean(errors**4, axis=[1, 2]), 0.25)], -1)


def _xyb(linear: tf.Tensor) -> tf.Tensor:
    """Linear RGB to XYB, scaled and shifted so that each channel of sRGB lies in [0, 1]."""
    red, green, blue = (
        tf.pow(tf.maximum(tf.reduce_sum(linear * cone, axis=-1) + DARK, 1e-30), 1 / 3) - DARK ** (1 / 3)
        for cone in CONES
    )
    x, y = (red - green) / 2, (red + green) / 2
    return tf.stack([14 * x + 0.42, y + 0.01, blue - y + 0.55], axis=-1)


def _blur(maps: tf.Tensor) -> tf.Tensor:
    """Blur each channel with zeros around."""
    radius = len(TAPS) // 2
    maps = tf.pad(maps, [[0, 0], [radius, radius], [radius, radius], [0, 0]])
    for shape in ((-1, 1, 1, 1), (1, -1, 1, 1)):
        kernel = TAPS.reshape(shape).repeat(maps.shape[-1], axis=2)
        maps = tf.nn.depthwise_conv2d(maps, kernel, strides=[1, 1, 1, 1], padding="VALID")
    return maps
