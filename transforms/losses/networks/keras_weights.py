"""Keras' published ImageNet VGG16: the file that Keras itself downloads. Free of TensorFlow."""

import io
import os
from pathlib import Path

import numpy as np

from transforms.losses.networks.lpips_weights import VGG16
from transforms.losses.networks.weights_file import Tensors, WeightsError

# keras.applications downloads its ImageNet weights from here, and checks them with this hash.
URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
    "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
MD5 = "6d6bbae143d832006294945121d1f1fc"


def cached() -> Path:
    """Where Keras keeps its file. To ask Keras itself would download it."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models" / URL.rpartition("/")[2]


def fetch() -> str:
    """Path of Keras' ImageNet VGG16 without the top; Keras itself downloads it, checks its hash and caches it.

    Raises:
        WeightsError: it cannot be downloaded.
    """
    from keras.utils import get_file

    try:
        path: str = get_file(cached().name, URL, cache_subdir="models", file_hash=MD5)
    except Exception as error:  # Keras raises a bare Exception for a failed download
        raise WeightsError(
            f"Keras could not fetch its VGG16 weights: {error}. Without a network, give --keras_weights=PATH"
        ) from error
    return path


def load(content: bytes) -> tuple[Tensors, Tensors]:
    """Load Keras' `vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5`.

    The file's kernels take BGR, as Caffe did; the ones returned take RGB.

    Returns:
        the convolutions, named and shaped as `lpips_weights.VGG16.load` does, and nothing for losses.

    Raises:
        WeightsError: it is not an HDF5 file, or its layers are not VGG16's.
    """
    import h5py

    tensors: Tensors = {}
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            for name in VGG16.convolutions:
                layer = file[f"block{name[4]}_conv{name[6]}"]
                kernel, bias = (layer[weight] for weight in layer.attrs["weight_names"])
                for tensor, stored in ((f"{name}.kernel", kernel), (f"{name}.bias", bias)):
                    # A few bytes may claim to be terabytes.
                    if (shape := VGG16.trunk_shapes[tensor]) != stored.shape:
                        raise WeightsError(
                            f"not Keras' VGG16: {tensor} should have shape {shape}, found {stored.shape}"
                        )
                    tensors[tensor] = np.asarray(stored, np.float32)
        tensors["conv1_1.kernel"] = np.ascontiguousarray(np.flip(tensors["conv1_1.kernel"], axis=2))
    except (
        OSError,
        KeyError,
        ValueError,
        TypeError,
        RuntimeError,
        AttributeError,
    ) as error:  # h5py has five for damage
        raise WeightsError(f"not Keras' VGG16 in its HDF5 layout without the top: {error}") from error
    return tensors, {}
