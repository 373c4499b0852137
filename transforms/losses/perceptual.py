"""Losses on VGG16's features, differentiable: LPIPS, feature MSE, style. `fused` holds LPIPS for CPU scoring.

`features` are those of one network for the generated and the target images: per layer [B, h, w, C], float32 or
bfloat16 or float16; everything after them is float32. Every function gives one number per pair, [B].

No product of tensors of more than two axes is taken: on CPUs, with several threads, that of TensorFlow 2.21 gives
other numbers at every call for some shapes, or breaks off.
"""

from collections.abc import Mapping, Sequence

import tensorflow as tf

Features = Mapping[str, tf.Tensor]

# LPIPS' own guard against a division by zero.
LPIPS_EPSILON = 1e-10


def lpips_vgg(generated: Features, target: Features, heads: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """LPIPS v0.1 of VGG16: sum over layers of the mean over H, W of w · (ĝ - t̂)², features of unit length.

    Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, https://arxiv.org/abs/1801.03924.

    Args:
        generated: features of the generated images.
        target: features of the target images.
        heads: per layer the non-negative weights w of its channels, float32 [C].
    """
    distances = []
    for layer, weights in heads.items():
        difference = _unit_length(generated[layer]) - _unit_length(target[layer])
        per_pixel = tf.reduce_sum(tf.square(difference) * weights, axis=-1)
        distances.append(tf.reduce_mean(per_pixel, axis=(1, 2)))
    return tf.add_n(distances)


def vgg_mse(generated: Features, target: Features, layers: Sequence[str]) -> tf.Tensor:
    """Feature MSE: sum over the layers of the mean over H, W, C of (g - t)².

    Johnson et al., Perceptual Losses for Real-Time Style Transfer and Super-Resolution, https://arxiv.org/abs/1603.08155.
    """
    return tf.add_n([tf.reduce_mean(tf.square(_difference(generated[k], target[k])), axis=(1, 2, 3)) for k in layers])


def style(generated: Features, target: Features, layers: Sequence[str]) -> tf.Tensor:
    """Style: sum over the layers of the mean square of the difference of the Gram matrices FᵀF / (H·W).

    Gatys et al., Image Style Transfer Using Convolutional Neural Networks, CVPR 2016, with Johnson's normalisation.
    """
    return tf.add_n([tf.reduce_mean(tf.square(_gram(generated[k]) - _gram(target[k])), axis=(1, 2)) for k in layers])


def _unit_length(features: tf.Tensor) -> tf.Tensor:
    features = tf.cast(features, tf.float32)
    squares = tf.reduce_sum(tf.square(features), axis=-1, keepdims=True)
    # The root's slope at 0 is infinite, and 0 times that is NaN in the gradient: no root is taken of a 0.
    positive = squares > 0
    length = tf.where(positive, tf.sqrt(tf.where(positive, squares, 1.0)), 0.0)
    return features / (length + LPIPS_EPSILON)


def _difference(generated: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    return tf.cast(generated, tf.float32) - tf.cast(target, tf.float32)


def _gram(features: tf.Tensor) -> tf.Tensor:
    features = tf.cast(features, tf.float32)
    shape = tf.shape(features)
    pixels = shape[1] * shape[2]
    flat = tf.reshape(features, [shape[0], pixels, shape[3]])
    products = tf.map_fn(lambda pair: tf.matmul(pair, pair, transpose_a=True), flat)
    return products / tf.cast(pixels, tf.float32)
