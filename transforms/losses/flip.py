"""FLIP: the difference that people see when they flip between two images.

Andersson et al. 2020, "FLIP: A difference evaluator for alternating images", in its form for low dynamic range. It
depends on the viewing distance, which is the authors' default: 0.7 m from a display of 0.7 m and 3840 pixels. The
arithmetic is float64, because the differences of similar images are small next to the filtered images themselves.
"""

import math

import numpy as np
import tensorflow as tf

from transforms.losses.color import linear_rgb
from transforms.losses.pair import Pair
from transforms.losses.pixels import power

PIXELS_PER_DEGREE = 3840 * math.pi / 180

# From linear sRGB to XYZ over its white, D65.
_XYZ_OF_RGB = np.array(
    [
        [10135552 / 24577794, 8788810 / 24577794, 4435075 / 24577794],
        [2613072 / 12288897, 8788810 / 12288897, 887015 / 12288897],
        [1425312 / 73733382, 8788810 / 73733382, 70074185 / 73733382],
    ]
)
_XYZ_OF_RGB /= np.array([[0.950428545], [1.0], [1.088900371]])
_RGB_OF_XYZ = np.linalg.inv(_XYZ_OF_RGB)
# From XYZ over its white to YCxCz. The constant of Y, -16, is left out: every filter here keeps a constant.
_OPPONENT_OF_XYZ = np.array([[0.0, 116.0, 0.0], [500.0, -500.0, 0.0], [0.0, 200.0, -200.0]])
_XYZ_OF_OPPONENT = np.linalg.inv(_OPPONENT_OF_XYZ)

_COLOR_EXPONENT, _FEATURE_EXPONENT = 0.7, 0.5
# The largest colour difference, between green and blue, to the power of the exponent.
_LARGEST = 41.27609841185734
# Differences up to this part of the largest fill [0, 0.95], greater ones the rest.
_PART, _PART_FILLS = 0.4, 0.95
_LAB_LIMIT = (6 / 29) ** 3


def flip(pair: Pair) -> tf.Tensor:
    """Mean of `flip_map` over the pixels, in [0, 1]."""
    return tf.cast(pair.over.mean(flip_map(pair)), tf.float32)


def flip_map(pair: Pair) -> tf.Tensor:
    """FLIP at every pixel, float64 [B, H, W] in [0, 1]: the colour difference, raised where edges or points differ.

    Where two pixels are equal its slope is infinite; here it is 0.
    """
    generated, target = (_opponent(images) for images in (pair.generated, pair.target))
    difference = power(_hyab(_perceived(generated), _perceived(target)), _COLOR_EXPONENT)
    part = _PART * _LARGEST
    rest = _PART_FILLS + (difference - part) / (_LARGEST - part) * (1 - _PART_FILLS)
    color = tf.where(difference < part, difference * (_PART_FILLS / part), rest)
    features = (
        tf.abs(ours - theirs)
        for ours, theirs in zip(_edges_and_points(generated), _edges_and_points(target), strict=True)
    )
    return power(color, 1 - power(tf.maximum(*features) / math.sqrt(2), _FEATURE_EXPONENT))


def _opponent(images: tf.Tensor) -> tf.Tensor:
    """sRGB [B, H, W, 3] in [0, 1] to YCxCz, Y without its constant."""
    return _transform(linear_rgb(images), _OPPONENT_OF_XYZ @ _XYZ_OF_RGB)


def _perceived(opponent: tf.Tensor) -> tf.Tensor:
    """YCxCz as far as the eye resolves it, in CIELAB whose colours fade with the light (Hunt)."""
    # Yellow-blue is seen by two Gaussians: a channel each, which are added up afterwards.
    channels = tf.gather(opponent, [0, 1, 2, 2], axis=-1)
    seen = _filter(_filter(channels, _SENSITIVITY, axis=1), _SENSITIVITY, axis=2) * _SENSITIVITY_WEIGHTS
    linear = tf.clip_by_value(_transform(seen, _RGB_OF_XYZ @ _XYZ_OF_OPPONENT[:, [0, 1, 2, 2]]), 0.0, 1.0)
    xyz = _transform(linear, _XYZ_OF_RGB)
    root = tf.pow(tf.maximum(xyz, _LAB_LIMIT), 1 / 3)
    x, y, z = tf.unstack(tf.where(xyz > _LAB_LIMIT, root, xyz * (29 / 6) ** 2 / 3 + 4 / 29), axis=-1)
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
        _filter(_filter(light, _FEATURES_ACROSS, axis=2), _FEATURES_DOWN, axis=1), axis=-1
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


def _sensitivity() -> tuple[np.ndarray, np.ndarray]:
    """Contrast sensitivity to light, red-green and twice yellow-blue: taps [K, 4] of sum 1, and their weights [4]."""
    heights, widths = np.array([1.0, 1.0, 34.1, 13.5]), np.array([0.0047, 0.0053, 0.04, 0.025])
    radius = math.ceil(3 * math.sqrt(widths.max() / (2 * math.pi**2)) * PIXELS_PER_DEGREE)
    degrees = np.arange(-radius, radius + 1)[:, np.newaxis] / PIXELS_PER_DEGREE
    taps = np.exp(-((math.pi * degrees) ** 2) / widths)
    sums = taps.sum(axis=0)
    weights = heights * np.sqrt(math.pi / widths) * sums**2
    weights[:2] = 1.0
    weights[2:] /= weights[2:].sum()
    return taps / sums, weights


def _features() -> tuple[np.ndarray, np.ndarray]:
    """Detectors of edges and points across, then down: the taps [K, 4] along the rows, and along the columns."""
    deviation = 0.5 * 0.082 * PIXELS_PER_DEGREE
    radius = math.ceil(3 * deviation)
    offsets = np.arange(-radius, radius + 1)
    smooth = np.exp(-(offsets**2) / (2 * deviation**2))
    edge, point = -offsets * smooth, ((offsets / deviation) ** 2 - 1) * smooth
    smooth /= smooth.sum()
    edge, point = (np.where(t > 0, t / t[t > 0].sum(), t / -t[t < 0].sum()) for t in (edge, point))
    return np.stack([edge, point, smooth, smooth], axis=1), np.stack([smooth, smooth, edge, point], axis=1)


_SENSITIVITY, _SENSITIVITY_WEIGHTS = _sensitivity()
_FEATURES_ACROSS, _FEATURES_DOWN = _features()
