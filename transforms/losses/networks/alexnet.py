"""The convolutional part of AlexNet, as torchvision has it.

Krizhevsky, One weird trick for parallelizing convolutional neural networks, https://arxiv.org/abs/1404.5997. A layer is
named after its output: `relu3` after the ReLU of the third convolution.
"""

from collections.abc import Collection, Mapping

import numpy as np
import tensorflow as tf

from transforms.losses.networks.specs import ALEXNET_LAYERS, Preprocessing

# By convolution: its stride, and the zeros around its input.
_STRIDES = {"conv1": 4}
_PADDING = {"conv1": 2, "conv2": 2, "conv3": 1, "conv4": 1, "conv5": 1}
# Before these, a max-pooling takes 3x3 at every second pixel.
_POOLED = ("conv2", "conv3")


class AlexNet:
    """The convolutional part of AlexNet on constant weights.

    Args:
        tensors: `conv<n>.kernel` and `.bias`, float32, kernels HWIO for RGB input.
        preprocessing: belongs to the training that the weights come from.
        dtype: of the convolutions and of the features.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray], preprocessing: Preprocessing, dtype: tf.DType = tf.float32):
        self.preprocessing = preprocessing
        self.dtype = dtype
        self._tensors = {name: tf.constant(value, dtype) for name, value in tensors.items()}

    def features(self, images: tf.Tensor, layers: Collection[str]) -> dict[str, tf.Tensor]:
        """Features of the layers. Nothing behind the deepest of them is computed.

        Args:
            images: float32 [B, H, W, 3] in [0, 1], RGB.
            layers: names from `specs.ALEXNET_LAYERS`.

        Returns:
            per layer `dtype` [B, h, w, C].
        """
        x = tf.cast(images * self.preprocessing.scale + self.preprocessing.offset, self.dtype)
        features = {}
        order = tuple(ALEXNET_LAYERS)
        for layer in order[: max(map(order.index, layers)) + 1]:
            name = layer.replace("relu", "conv")
            if name in _POOLED:
                x = tf.nn.max_pool2d(x, 3, 2, "VALID")
            around = [_PADDING[name]] * 2
            padding = [[0, 0], around, around, [0, 0]]
            x = tf.nn.conv2d(x, self._tensors[f"{name}.kernel"], _STRIDES.get(name, 1), padding)
            x = tf.nn.relu(tf.nn.bias_add(x, self._tensors[f"{name}.bias"]))
            if layer in layers:
                features[layer] = x
        return features
