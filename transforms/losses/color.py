"""Losses of colour difference as people see it: CIEDE2000.

Every loss takes a batch of pairs and returns float32 [B], one number per pair. Images are taken as sRGB; the arithmetic
is float64, because the differences of similar colours are small next to the colours' own coordinates.
"""

import math

import tensorflow as tf

from transforms.losses.constants import HALF_TURN, XYZ_OF_RGB
from transforms.losses.pair import Pair


def ciede2000(pair: Pair) -> tf.Tensor:
    """Mean CIEDE2000 colour difference of the pixels, at least 0; about 1 is just noticeable.

    Reference: Sharma, Wu and Dalal 2005, "The CIEDE2000 color-difference formula".
    """
    return tf.cast(pair.over.mean(_differences(pair)), tf.float32)


def ciede2000_p95(pair: Pair) -> tf.Tensor:
    """The CIEDE2000 colour difference that 95 % of the pixels do not exceed, interpolated between pixels."""
    return tf.cast(pair.over.quantile(_differences(pair), 0.95), tf.float32)


def linear_rgb(images: tf.Tensor) -> tf.Tensor:
    """sRGB in [0, 1] to linear RGB, float64."""
    srgb = tf.cast(images, tf.float64)
    # The limit inside keeps a negative base, of a prediction below 0, away from the power.
    curved = tf.pow((tf.maximum(srgb, 0.04045) + 0.055) / 1.055, 2.4)
    return tf.where(srgb > 0.04045, curved, srgb / 12.92)


def _differences(pair: Pair) -> tf.Tensor:
    """CIEDE2000 of every pixel, float64 [B, H, W]."""
    return delta_e_2000(_lab(pair.generated), _lab(pair.target))


def _lab(images: tf.Tensor) -> tf.Tensor:
    """sRGB [B, H, W, 3] in [0, 1] to CIELAB, float64."""
    linear = linear_rgb(images)
    x, y, z = (_lab_curve(tf.reduce_sum(linear * row, axis=-1)) for row in XYZ_OF_RGB)
    return tf.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _lab_curve(ratio: tf.Tensor) -> tf.Tensor:
    return tf.where(ratio > 0.008856, tf.pow(ratio, 1 / 3), 7.787 * ratio + 16 / 116)


def delta_e_2000(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """CIEDE2000 [...] of colours in CIELAB [..., 3], float64, with kL = kC = kH = 1."""
    (l1, a1, b1), (l2, a2, b2) = (tf.unstack(lab, axis=-1) for lab in (one, other))
    chroma7 = tf.pow((tf.sqrt(a1**2 + b1**2) + tf.sqrt(a2**2 + b2**2)) / 2, 7)
    stretch = 1 + 0.5 * (1 - tf.sqrt(chroma7 / (chroma7 + 25.0**7)))
    a1, a2 = stretch * a1, stretch * a2
    c1, c2 = tf.sqrt(a1**2 + b1**2), tf.sqrt(a2**2 + b2**2)
    h1, h2 = _hue(a1, b1), _hue(a2, b2)

    gray = c1 * c2 == 0
    turn = h2 - h1
    turn -= 360 * tf.cast(turn > HALF_TURN, tf.float64) - 360 * tf.cast(turn < -HALF_TURN, tf.float64)
    turn = tf.where(gray, tf.zeros_like(turn), turn)
    hue = 2 * tf.sqrt(c1 * c2) * _sin(turn / 2)
    lightness, chroma = l2 - l1, c2 - c1

    mean_l, mean_c, total_h = (l1 + l2) / 2, (c1 + c2) / 2, h1 + h2
    around = tf.where(total_h < 360, total_h + 360, total_h - 360) / 2
    mean_h = tf.where(gray, total_h, tf.where(tf.abs(h1 - h2) > HALF_TURN, around, total_h / 2))
    t = (
        1
        - 0.17 * _cos(mean_h - 30)
        + 0.24 * _cos(2 * mean_h)
        + 0.32 * _cos(3 * mean_h + 6)
        - 0.20 * _cos(4 * mean_h - 63)
    )
    mean_c7 = tf.pow(mean_c, 7)
    rotation = -2 * tf.sqrt(mean_c7 / (mean_c7 + 25.0**7)) * _sin(60 * tf.exp(-(((mean_h - 275) / 25) ** 2)))
    lightness /= 1 + 0.015 * (mean_l - 50) ** 2 / tf.sqrt(20 + (mean_l - 50) ** 2)
    chroma /= 1 + 0.045 * mean_c
    hue /= 1 + 0.015 * mean_c * t
    # Rounding may take the sum of an all but identical pair below 0.
    return tf.sqrt(tf.maximum(lightness**2 + chroma**2 + hue**2 + rotation * chroma * hue, 0))


def _hue(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Degrees in [0, 360)."""
    return tf.math.floormod(tf.atan2(b, a) * (180 / math.pi), 360)


def _sin(degrees: tf.Tensor) -> tf.Tensor:
    return tf.sin(degrees * (math.pi / 180))


def _cos(degrees: tf.Tensor) -> tf.Tensor:
    return tf.cos(degrees * (math.pi / 180))
