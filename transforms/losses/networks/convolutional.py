"""A network that is a chain of convolutions with ReLU and of poolings."""

from collections.abc import Collection, Mapping
from typing import ClassVar, NamedTuple

import numpy as np
import tensorflow as tf

from transforms.losses.networks.specs import Preprocessing


class Layer(NamedTuple):
    """A layer: a pooling of every second pixel, then a convolution with ReLU; either may be missing.

    Attributes:
        convolution: name of its tensors; empty: a pooling alone.
        pooled: pixels that the pooling before takes at once; 0: no pooling.
        stride: of the convolution.
        padding: zeros around the convolution's input; None: as many as keep its size.
    """

    convolution: str = ""
    pooled: int = 0
    stride: int = 1
    padding: int | None = None


class ConvolutionalNetwork:
    """A chain of layers on constant weights. A subclass names the layers.

    Args:
        tensors: for each convolution `<name>.kernel` and `.bias`, float32, kernels HWIO for RGB input.
        preprocessing: belongs to the training that the weights come from.
        dtype: of the convolutions and of the features.

    Attributes:
        layers: by the name of its output, shallowest first.
    """

    layers: ClassVar[Mapping[str, Layer]]

    def __init__(self, tensors: Mapping[str, np.ndarray], preprocessing: Preprocessing, dtype: str = "float32"):
        self.preprocessing = preprocessing
        self.dtype = tf.as_dtype(dtype)
        self._tensors = {name: tf.constant(value, self.dtype) for name, value in tensors.items()}

    def features(self, images: tf.Tensor, layers: Collection[str]) -> dict[str, tf.Tensor]:
        """Features of the layers. Nothing behind the deepest of them is computed.

        Args:
            images: float32 [B, H, W, 3] in [0, 1], RGB.
            layers: names from `self.layers`.

        Returns:
            per layer `dtype` [B, h, w, C].
        """
        x = tf.cast(images * self.preprocessing.scale + self.preprocessing.offset, self.dtype)
        features = {}
        order = tuple(self.layers)
        for name in order[: max(map(order.index, layers)) + 1]:
            layer = self.layers[name]
            if layer.pooled:
                x = self.pool(x, layer.pooled)
            if layer.convolution:
                x = self._convolve(x, layer)
            if name in layers:
                features[name] = x
        return features

    def pool(self, x: tf.Tensor, size: int) -> tf.Tensor:
        """Halve the features, rounding down: the maximum of `size` x `size` pixels at every second pixel."""
        return tf.nn.max_pool2d(x, size, 2, "VALID")

    def _convolve(self, x: tf.Tensor, layer: Layer) -> tf.Tensor:
        around = [layer.padding or 0] * 2
        padding = "SAME" if layer.padding is None else [[0, 0], around, around, [0, 0]]
        x = tf.nn.conv2d(x, self._tensors[f"{layer.convolution}.kernel"], layer.stride, padding)
        return tf.nn.relu(tf.nn.bias_add(x, self._tensors[f"{layer.convolution}.bias"]))
