"""Compute a network's features with TensorFlow, on any device and in any precision."""

from collections.abc import Collection, Mapping

import numpy as np
import tensorflow as tf

from transforms.losses.networks.layers import L2_EPSILON, L2_WINDOW, Layer
from transforms.losses.networks.specs import Preprocessing


class TensorFlowNetwork:
    """A network on constant weights.

    Args:
        layers: by the name of its output, shallowest first.
        tensors: for each convolution `<name>.kernel` and `.bias`, float32, kernels HWIO for RGB input.
        preprocessing: belongs to the training that the weights come from.
        dtype: of the convolutions and of the features.
    """

    def __init__(
        self,
        layers: Mapping[str, Layer],
        tensors: Mapping[str, np.ndarray],
        preprocessing: Preprocessing,
        dtype: str = "float32",
    ):
        self.preprocessing = preprocessing
        self.dtype = tf.as_dtype(dtype)
        self._layers = layers
        self._tensors = {name: tf.constant(value, self.dtype) for name, value in tensors.items()}

    def features(self, images: tf.Tensor, layers: Collection[str]) -> dict[str, tf.Tensor]:
        """Features of the layers. Nothing behind the deepest of them is computed.

        Args:
            images: float32 [B, H, W, 3] in [0, 1], RGB.
            layers: names of the network's layers.

        Returns:
            per layer `dtype` [B, h, w, C].
        """
        x = tf.cast(images * self.preprocessing.scale + self.preprocessing.offset, self.dtype)
        features = {}
        order = tuple(self._layers)
        for name in order[: max(map(order.index, layers)) + 1]:
            layer = self._layers[name]
            if layer.pooled:
                x = _l2_pool(x) if layer.pooling == "l2" else tf.nn.max_pool2d(x, layer.pooled, 2, "VALID")
            if layer.convolution:
                x = self._convolve(x, layer)
            if name in layers:
                features[name] = x
        return features

    def _convolve(self, x: tf.Tensor, layer: Layer) -> tf.Tensor:
        around = [layer.padding or 0] * 2
        padding = "SAME" if layer.padding is None else [[0, 0], around, around, [0, 0]]
        x = tf.nn.conv2d(x, self._tensors[f"{layer.convolution}.kernel"], layer.stride, padding)
        return tf.nn.relu(tf.nn.bias_add(x, self._tensors[f"{layer.convolution}.bias"]))


def _l2_pool(x: tf.Tensor) -> tf.Tensor:
    """In float32 whatever the features are, because squares leave the range of float16."""
    kernel = L2_WINDOW[:, :, np.newaxis, np.newaxis].repeat(x.shape[-1], axis=2)
    squares = tf.pad(tf.square(tf.cast(x, tf.float32)), [[0, 0], [1, 1], [1, 1], [0, 0]])
    means = tf.nn.depthwise_conv2d(squares, kernel, strides=[1, 2, 2, 1], padding="VALID")
    return tf.cast(tf.sqrt(means + L2_EPSILON), x.dtype)
