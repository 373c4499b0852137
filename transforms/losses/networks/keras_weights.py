"""Keras' published ImageNet VGG16: the file that Keras itself downloads. Free of Keras and TensorFlow."""

import hashlib
import io
import os
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

import numpy as np

from transforms.losses.networks.lpips_weights import VGG16
from transforms.losses.networks.weights_file import Tensors, WeightsError, keep

# keras.applications downloads its ImageNet weights from here, and checks them with this hash.
URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
    "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
MD5 = "6d6bbae143d832006294945121d1f1fc"
# A server that sends nothing for so long will not.
_SILENT_SECONDS = 60


def cached() -> Path:
    """Where Keras keeps its file. To ask Keras itself would download it."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models" / URL.rpartition("/")[2]


def fetch() -> str:
    """Path of Keras' ImageNet VGG16 without the top; downloaded first if it is missing or damaged.

    It lies where Keras would put it, which takes seconds to import.

    Raises:
        WeightsError: it cannot be downloaded or kept, or it has another hash.
    """
    path = cached()
    try:
        if path.is_file() and _is_published(path.read_bytes()):
            return str(path)
        with urlopen(URL, timeout=_SILENT_SECONDS) as answer:
            content = answer.read()
        if not _is_published(content):
            raise OSError(f"its MD5 is not {MD5}; it was not used")
    except (OSError, HTTPException) as error:
        raise WeightsError(f"cannot fetch {URL}: {error}. Without a network, give --keras_weights=PATH") from error
    keep(path, content, variable="KERAS_HOME")
    return str(path)


def _is_published(content: bytes) -> bool:
    return hashlib.md5(content, usedforsecurity=False).hexdigest() == MD5


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
