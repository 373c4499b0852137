"""The convolutional part of VGG16.

Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition,
https://arxiv.org/abs/1409.1556. A layer is named after its output: `relu3_2` after the ReLU of the second
convolution of block 3, `pool3` after the max-pooling that ends block 3.
"""

from collections.abc import Collection, Mapping

import numpy as np
import tensorflow as tf

from transforms.losses.networks.specs import VGG16_LAYERS, Preprocessing


class Vgg16:
    """The convolutional part of VGG16 on constant weights.

    Args:
        tensors: `conv<b>_<l>.kernel` and `.bias`, float32, kernels HWIO for RGB input.
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
            layers: names from `specs.VGG16_LAYERS`.

        Returns:
            per layer `dtype` [B, h, w, C]; every pooling halves h and w with floor.
        """
        x = tf.cast(images * self.preprocessing.scale + self.preprocessing.offset, self.dtype)
        features = {}
        order = tuple(VGG16_LAYERS)
        for layer in order[: max(map(order.index, layers)) + 1]:
            if layer.startswith("pool"):
                x = tf.nn.max_pool2d(x, 2, 2, "VALID")
            else:
                name = layer.replace("relu", "conv")
                x = tf.nn.conv2d(x, self._tensors[f"{name}.kernel"], 1, "SAME")
                x = tf.nn.relu(tf.nn.bias_add(x, self._tensors[f"{name}.bias"]))
            if layer in layers:
                features[layer] = x
        return features
