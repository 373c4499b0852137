"""FLIP: the difference that people see when they flip between two images.

Andersson et al. 2020, "FLIP: A difference evaluator for alternating images", in its form for low dynamic range. It
depends on the viewing distance, which is the authors' default: 0.7 m from a display of 0.7 m and 3840 pixels. The
arithmetic is float64, because the differences of similar images are small next to the filtered images themselves.
"""

import math

import numpy as np
import tensorflow as tf

from transforms.losses.color import linear_rgb
from transforms.losses.flip_constants import (
    COLOR_EXPONENT,
    FEATURES_ACROSS,
    FEATURES_DOWN,
    LAB_LIMIT,
    LARGEST,
    OPPONENT_OF_RGB,
    PART,
    PART_FILLS,
    RGB_OF_OPPONENT,
    SENSITIVITY,
    SENSITIVITY_WEIGHTS,
    XYZ_OF_RGB,
)
from transforms.losses.pair import Pair
from transforms.losses.pixels import power


def flip(pair: Pair) -> tf.Tensor:
    """Mean of `flip_map` over the pixels, in [0, 1]."""
    return tf.cast(pair.over.mean(flip_map(pair)), tf.float32)


def flip_map(pair: Pair) -> tf.Tensor:
    """FLIP at every pixel, float64 [B, H, W] in [0, 1]: the colour difference, raised where edges or points differ.

    Where two pixels are equal its slope is infinite; here it is 0.
    """
    generated, target = (_opponent(images) for images in (pair.generated, pair.target))
    difference = power(_hyab(_perceived(generated), _perceived(target)), COLOR_EXPONENT)
    part = PART * LARGEST
    rest = PART_FILLS + (difference - part) / (LARGEST - part) * (1 - PART_FILLS)
    color = tf.where(difference < part, difference * (PART_FILLS / part), rest)
    features = (
        tf.abs(ours - theirs)
        for ours, theirs in zip(_edges_and_points(generated), _edges_and_points(target), strict=True)
    )
    return power(color, 1 - power(tf.maximum(*features) / math.sqrt(2), 0.5))


def _opponent(images: tf.Tensor) -> tf.Tensor:
    """sRGB [B, H, W, 3] in [0, 1] to YCxCz, Y without its constant."""
    return _transform(linear_rgb(images), OPPONENT_OF_RGB)


def _perceived(opponent: tf.Tensor) -> tf.Tensor:
    """YCxCz as far as the eye resolves it, in CIELAB whose colours fade with the light (Hunt)."""
    # Yellow-blue is seen by two Gaussians: a channel each, which are added up afterwards.
    channels = tf.gather(opponent, [0, 1, 2, 2], axis=-1)
    seen = _filter(_filter(channels, SENSITIVITY, axis=1), SENSITIVITY, axis=2) * SENSITIVITY_WEIGHTS
    linear = tf.clip_by_value(_transform(seen, RGB_OF_OPPONENT[:, [0, 1, 2, 2]]), 0.0, 1.0)
    xyz = _transform(linear, XYZ_OF_RGB)
    root = tf.pow(tf.maximum(xyz, LAB_LIMIT), 1 / 3)
    x, y, z = tf.unstack(tf.where(xyz > LAB_LIMIT, root, xyz * (29 / 6) ** 2 / 3 + 4 / 29), axis=-1)
    light = 116 * y - 16
    return tf.stack([light, 0.01 * light * 500 * (x - y), 0.01 * light * 200 * (y - z)], axis=-1)


def _hyab(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """The distance of colours [..., 3]: of their lightness, plus that of their hue and chroma."""
    light, a, b = tf.unstack(one - other, axis=-1)
    return tf.abs(light) + power(a**2 + b**2, 0.5)


def _edges_and_points(opponent: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """How strong an edge, and how strong a point, is at every pixel: [B, H, W] each."""
    light = tf.repeat(opponent[..., :1] / 116, 4, axis=-1)
    edge_across, point_across, edge_down, point_down = tf.unstack(
        _filter(_filter(light, FEATURES_ACROSS, axis=2), FEATURES_DOWN, axis=1), axis=-1
    )
    return power(edge_across**2 + edge_down**2, 0.5), power(point_across**2 + point_down**2, 0.5)


def _transform(images: tf.Tensor, matrix: np.ndarray) -> tf.Tensor:
    """Multiply each pixel's channels by a matrix."""
    return tf.stack([tf.reduce_sum(images * row, axis=-1) for row in matrix], axis=-1)


def _filter(images: tf.Tensor, taps: np.ndarray, axis: int) -> tf.Tensor:
    """Correlate each channel of [B, H, W, C] along an axis with taps [K, C]; the border repeats outside."""
    radius = len(taps) // 2
    first, last = (images[:, :1], images[:, -1:]) if axis == 1 else (images[:, :, :1], images[:, :, -1:])
    padded = tf.concat([tf.repeat(first, radius, axis), images, tf.repeat(last, radius, axis)], axis)
    kernel = np.expand_dims(taps[..., np.newaxis], 2 - axis)
    return tf.nn.depthwise_conv2d(padded, kernel, strides=[1, 1, 1, 1], padding="VALID")
