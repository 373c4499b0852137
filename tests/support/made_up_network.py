"""All that a new network and the losses on it need beside their rows: an architecture, its weights, a loss."""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy
import tensorflow as tf

from transforms.losses.networks.specs import Preprocessing
from transforms.losses.networks.weights_file import WeightsError, cache_directory, keep
from transforms.losses.pair import Pair

_TENSORS = {"kernel": np.random.default_rng(0).random((3, 3, 3, 4), np.float32), "scale": np.ones(4, np.float32)}
CONTENT = safetensors.numpy.save(_TENSORS)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class OneConvolution:
    """The layer `edges`: a convolution of stride 2."""

    def __init__(self, tensors: Mapping[str, np.ndarray], preprocessing: Preprocessing, dtype: tf.DType = tf.float32):
        self.preprocessing = preprocessing
        self.kernel = tf.constant(tensors["kernel"], dtype)

    def features(self, images: tf.Tensor, layers: Collection[str]) -> dict[str, tf.Tensor]:
        x = tf.cast(images * self.preprocessing.scale + self.preprocessing.offset, self.kernel.dtype)
        return {layer: tf.nn.conv2d(x, self.kernel, 2, "VALID") for layer in layers}


def cached() -> Path:
    return cache_directory() / "one_convolution.safetensors"


def fetch(archive: Path | None = None) -> Path:
    keep(cached(), CONTENT)
    return cached()


def load(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    tensors = safetensors.numpy.load(content)
    if tensors.keys() != _TENSORS.keys():
        raise WeightsError(f"expected {sorted(_TENSORS)}, found {sorted(tensors)}")
    return {"kernel": tensors["kernel"]}, {"edges": tensors["scale"]}


def scaled_distance(pair: Pair) -> tf.Tensor:
    """A loss on the network: a weighted mean of squared differences."""
    differences = pair.generated_features["edges"] - pair.target_features["edges"]
    return tf.reduce_mean(tf.square(tf.cast(differences, tf.float32)) * pair.weights["edges"], axis=(1, 2, 3))


def largest_difference(pair: Pair) -> tf.Tensor:
    """A loss on pixels."""
    return tf.reduce_max(tf.abs(pair.generated - pair.target), axis=(1, 2, 3))
