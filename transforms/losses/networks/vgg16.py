"""VGG16's convolutional part, with torchvision's or Keras' weights and the preprocessing that belongs to each.

Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition,
https://arxiv.org/abs/1409.1556. A layer is named by what it gives: `relu3_2` after the ReLU of the second convolution
of block 3, `pool3` after the max-pooling that ends block 3.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from transforms.losses.networks.layers import LAYERS


@dataclass(frozen=True)
class Preprocessing:
    """What the network's training did to its input: `x * scale + offset` per RGB channel, for x in [0, 1]."""

    scale: tuple[float, float, float]
    offset: tuple[float, float, float]


# LPIPS: x -> 2x - 1, minus the shift, over the scale (its ScalingLayer: ImageNet's mean and deviation on [-1, 1]).
_LPIPS_SHIFT, _LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
LPIPS_PREPROCESSING = Preprocessing(
    scale=tuple(2 / scale for scale in _LPIPS_SCALE),  # type: ignore[arg-type]
    offset=tuple((-1 - shift) / scale for shift, scale in zip(_LPIPS_SHIFT, _LPIPS_SCALE, strict=True)),  # type: ignore[arg-type]
)
# Keras ("caffe" mode): 0 to 255 minus the mean; its BGR order is in the kernel (weights.load_keras).
KERAS_PREPROCESSING = Preprocessing(scale=(255.0, 255.0, 255.0), offset=(-123.68, -116.779, -103.939))


class Vgg16:
    """The convolutional part of VGG16 on constant weights.

    Args:
        tensors: `conv<b>_<l>.kernel` and `.bias`, float32, kernels HWIO for RGB input.
        preprocessing: of the training the weights come from.
        dtype: of the convolutions and of the features.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray], preprocessing: Preprocessing, dtype: tf.DType = tf.float32):
        self.preprocessing = preprocessing
        self.dtype = dtype
        self._tensors = {name: tf.constant(value, dtype) for name, value in tensors.items() if name.startswith("conv")}

    def features(self, images: tf.Tensor, layers: Collection[str]) -> dict[str, tf.Tensor]:
        """Features of the layers; nothing behind the deepest of them is computed.

        Args:
            images: float32 [B, H, W, 3] in [0, 1], RGB.
            layers: names from `layers.LAYERS`.

        Returns:
            per layer `dtype` [B, h, w, C]; every pooling halves h and w with floor.
        """
        x = tf.cast(images * self.preprocessing.scale + self.preprocessing.offset, self.dtype)
        features = {}
        for layer in LAYERS[: max(map(LAYERS.index, layers)) + 1]:
            if layer.startswith("pool"):
                x = tf.nn.max_pool2d(x, 2, 2, "VALID")
            else:
                name = layer.replace("relu", "conv")
                x = tf.nn.conv2d(x, self._tensors[f"{name}.kernel"], 1, "SAME")
                x = tf.nn.relu(tf.nn.bias_add(x, self._tensors[f"{name}.bias"]))
            if layer in layers:
                features[layer] = x
        return features
