"""VGG16 as DISTS has it: torchvision's convolutions, and L2 pooling instead of max-pooling.

Ding, Ma, Wang and Simoncelli, Image Quality Assessment: Unifying Structure and Texture Similarity,
https://arxiv.org/abs/2004.07728. The convolutions are those of LPIPS' weights file. The weights of DISTS itself lie
beside this module: `dists.safetensors` holds alpha and beta of the authors' PyPI package `dists-pytorch` 0.1, with its
licence (MIT) in the file's metadata.
"""

from pathlib import Path
from typing import ClassVar

import numpy as np
import safetensors.numpy
import tensorflow as tf

from transforms.losses.networks.convolutional import ConvolutionalNetwork, Layer
from transforms.losses.networks.lpips_weights import VGG16
from transforms.losses.networks.specs import LPIPS_LAYERS, VGG16_LAYERS
from transforms.losses.networks.weights_file import Tensors, check_hash

DISTS_FILE = Path(__file__).with_name("dists.safetensors")
DISTS_SHA256 = "c24a236b8e73e5bb94558ce7020da71ab958f0577bd3c335a3653445f7e04c58"

_HANNING = np.array([0.25, 0.5, 0.25], np.float32)
_EPSILON = 1e-12


class DistsVgg16(ConvolutionalNetwork):
    """VGG16 with L2 pooling; every pooling halves h and w, rounding up."""

    layers: ClassVar = {
        name: Layer(name.replace("relu", "conv"), pooled=3 if name.endswith("_1") and name != "relu1_1" else 0)
        for name in VGG16_LAYERS
        if name.startswith("relu")
    }

    def pool(self, x: tf.Tensor, size: int) -> tf.Tensor:
        """Halve the features, rounding up: the root of a weighted mean of squares, with zeros around.

        In float32 whatever the features are, because squares leave the range of float16.
        """
        kernel = np.outer(_HANNING, _HANNING)[:, :, np.newaxis, np.newaxis].repeat(x.shape[-1], axis=2)
        squares = tf.pad(tf.square(tf.cast(x, tf.float32)), [[0, 0], [1, 1], [1, 1], [0, 0]])
        means = tf.nn.depthwise_conv2d(squares, kernel, strides=[1, 2, 2, 1], padding="VALID")
        return tf.cast(tf.sqrt(means + _EPSILON), x.dtype)


def load(content: bytes) -> tuple[Tensors, Tensors]:
    """Load LPIPS' weights file of VGG16, and the weights of DISTS beside it.

    Returns:
        the convolutions, and by stage, `image` before the layers, alpha and beta of its channels: float32 [2, C], of
        sum 1 over all stages.

    Raises:
        WeightsError: as `lpips_weights.LpipsWeights.load`, or the file of DISTS is damaged.
    """
    convolutions, _ = VGG16.load(content)
    dists = DISTS_FILE.read_bytes()
    check_hash(str(DISTS_FILE), dists, DISTS_SHA256)
    tensors = safetensors.numpy.load(dists)
    weights = np.stack([tensors["alpha"], tensors["beta"]]).astype(np.float64)
    channels = {"image": 3} | {layer: VGG16.heads[layer] for layer in LPIPS_LAYERS}
    ends = np.cumsum(list(channels.values()))[:-1]
    stages = np.split((weights / weights.sum()).astype(np.float32), ends, axis=1)
    return convolutions, dict(zip(channels, stages, strict=True))
