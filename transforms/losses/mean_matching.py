"""GT-mean: each generated image is brightened or darkened to the mean of its target before any loss.

Low-light enhancement reports numbers with and without it, several decibels apart.
"""

import tensorflow as tf

from transforms.losses.reductions import Reductions

# OpenCV's gray.
GRAY_WEIGHTS = (0.299, 0.587, 0.114)


def match_mean(generated: tf.Tensor, target: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
    """The generated images times mean(gray target) / mean(gray generated), clipped to [0, 1].

    An identical pair stays identical to the bit, and a black image black.

    Args:
        generated: float32 [B, H, W, 3] in [0, 1].
        target: as `generated`.
        mask: the pixels whose mean is taken, bool [B, H, W]; None: all.
    """
    means = (_mean_gray(images, mask) for images in (target, generated))
    ratio = tf.cast(tf.math.divide_no_nan(*means), tf.float32)
    return tf.clip_by_value(generated * ratio[:, tf.newaxis, tf.newaxis, tf.newaxis], 0.0, 1.0)


def _mean_gray(images: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    # In float64, so that the order of the sum does not show in the ratio.
    gray = tf.reduce_sum(tf.cast(images, tf.float64) * GRAY_WEIGHTS, axis=-1)
    return Reductions(mask).mean(gray)
