"""Read weights files, LPIPS' as safetensors and Keras' as HDF5. No file is used before its hash is checked."""

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import fsspec
import numpy as np

# SHA-256 of the safetensors file that `pairloss weights` makes. It depends on the tensors alone.
LPIPS_SHA256 = "36862b2061b64fdb5029f25baf4af590ce7e93345348c93a91b5504ef571c143"

# VGG16's convolutions, block by block: https://arxiv.org/abs/1409.1556, configuration D.
CONVOLUTIONS = tuple(
    f"conv{block}_{layer}" for block, layers in enumerate((2, 2, 3, 3, 3), start=1) for layer in range(1, layers + 1)
)


class WeightsError(Exception):
    """Weights that are missing, damaged or not the ones asked for."""


class UnreadableWeightsError(WeightsError):
    """There is no file, or it cannot be read."""


@dataclass(frozen=True)
class WeightsFile:
    """A weights file and the hash its content must have.

    Attributes:
        path: local path or a URL that fsspec opens, such as `gs://bucket/file`.
        sha256: of the content, hexadecimal.
    """

    path: str
    sha256: str

    @classmethod
    def at(cls, path: str) -> "WeightsFile":
        """The file at the path, pinned to the content it has now.

        Raises:
            WeightsError: it cannot be read.
        """
        return cls(path, sha256_hex(_read(path)))

    def check(self) -> bytes:
        """The content of the file at the path, and of no other.

        Raises:
            WeightsError: it cannot be read, or its hash is another.
        """
        content = _read(self.path)
        if (actual := sha256_hex(content)) != self.sha256:
            raise WeightsError(f"{self.path} has SHA-256 {actual}, expected {self.sha256}; it was not used")
        return content

    def read(self) -> bytes:
        """The content; of LPIPS' file that of this machine's own cache, where the path leads nowhere.

        A worker on another machine than the launcher's does not have the launcher's cache.

        Raises:
            WeightsError: it cannot be read in either place, or its hash is another.
        """
        try:
            return self.check()
        except UnreadableWeightsError as error:
            if self.sha256 != LPIPS_SHA256:
                raise
            return self._read_cached(error)

    def _read_cached(self, reason: UnreadableWeightsError) -> bytes:
        cached = WeightsFile(str(cached_weights()), self.sha256)
        try:
            return cached.check()
        except WeightsError as error:
            tried = reason if cached == self else f"{reason}; {error}"
            raise WeightsError(
                f"{tried}. On every worker run pairloss weights, best when its image is built, "
                "or give --weights=gs://BUCKET/FILE"
            ) from error


def cached_weights() -> Path:
    """Where this machine keeps LPIPS' weights: in `$XDG_CACHE_HOME/pairloss`, by default `~/.cache/pairloss`."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "pairloss" / "lpips-v0.1-vgg16.safetensors"


def sha256_hex(content: bytes) -> str:
    """SHA-256 of the content as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def load_lpips(content: bytes) -> dict[str, np.ndarray]:
    """Tensors of a safetensors file: `conv<b>_<l>.kernel`, `conv<b>_<l>.bias`, `lin<b>.weight`, float32.

    Raises:
        WeightsError: it is no safetensors file.
    """
    import safetensors.numpy

    try:
        return safetensors.numpy.load(content)
    except safetensors.SafetensorError as error:
        raise WeightsError(f"not a safetensors file: {error}") from error


def load_keras(content: bytes) -> dict[str, np.ndarray]:
    """Tensors of Keras' `vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5`, named as those of `load_lpips`.

    The file's kernels take BGR, as Caffe did; the ones returned take RGB.

    Raises:
        WeightsError: it is no HDF5 file, or has not VGG16's layers.
    """
    import h5py

    tensors: dict[str, np.ndarray] = {}
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            for name in CONVOLUTIONS:
                layer = file[f"block{name[4]}_conv{name[6]}"]
                kernel, bias = (np.asarray(layer[weight], np.float32) for weight in layer.attrs["weight_names"])
                tensors[f"{name}.kernel"], tensors[f"{name}.bias"] = kernel, bias
        tensors["conv1_1.kernel"] = np.ascontiguousarray(np.flip(tensors["conv1_1.kernel"], axis=2))
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:  # h5py has all five for damage
        raise WeightsError(f"not Keras' VGG16 in its HDF5 layout without the top: {error}") from error
    return tensors


def check_vgg16(tensors: Mapping[str, np.ndarray], heads: bool) -> None:
    """Check names and shapes: the 13 convolutions, and LPIPS' five linear heads if asked for.

    Raises:
        WeightsError: the first tensor that is missing or has another shape.
    """
    channels = 3
    for name in CONVOLUTIONS:
        width = min(64 << (int(name[4]) - 1), 512)
        _check_shape(tensors, f"{name}.kernel", (3, 3, channels, width))
        _check_shape(tensors, f"{name}.bias", (width,))
        channels = width
    for block in range(1, 6) if heads else ():
        _check_shape(tensors, f"lin{block}.weight", (min(64 << (block - 1), 512),))


def _check_shape(tensors: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> None:
    found = tensors[name].shape if name in tensors else "no such tensor"
    if found != shape:
        raise WeightsError(f"weights: {name} should have shape {shape}, found {found}")


def _read(path: str) -> bytes:
    try:
        with fsspec.open(path, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise UnreadableWeightsError(f"cannot read the weights at {path}: there is no such file") from error
    except Exception as error:  # every file system of fsspec has errors of its own
        reason = " ".join(f"{error}".split()) or type(error).__name__
        raise UnreadableWeightsError(f"cannot read the weights at {path}: {reason}") from error
