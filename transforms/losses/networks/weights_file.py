"""Weights files, local or at a URL. No content is used before its hash is checked."""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import fsspec
import numpy as np

# A network's weights by name, float32.
Tensors = dict[str, np.ndarray]


class WeightsError(Exception):
    """Weights that are missing, damaged or not the ones asked for."""


class UnreadableWeightsError(WeightsError):
    """The file does not exist, or it cannot be read."""


@dataclass(frozen=True)
class WeightsFile:
    """A weights file and the hash its content must have.

    Attributes:
        path: local path or a URL that fsspec opens, such as `gs://bucket/file`; or `s3://`.
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

    def read(self) -> bytes:
        """The content.

        Raises:
            UnreadableWeightsError: it cannot be read.
            WeightsError: its hash differs.
        """
        content = _read(self.path)
        check_hash(self.path, content, self.sha256)
        return content


def cache_directory() -> Path:
    """Where this machine keeps the weights it has fetched: `$XDG_CACHE_HOME/pairloss`, or `~/.cache/pairloss`."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "pairloss"


def keep(path: Path, content: bytes, variable: str = "XDG_CACHE_HOME") -> None:
    """Write a file of a cache, whole or not at all.

    Args:
        path: of the file.
        content: of the file.
        variable: of the environment, which names the cache.

    Raises:
        WeightsError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two launchers may do this at once: each writes a file of its own, and the rename is atomic.
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as temporary:
            temporary.write(content)
        Path(temporary.name).chmod(0o644)
        Path(temporary.name).replace(path)
    except OSError as error:
        raise WeightsError(f"cannot keep the weights at {path}: {error}. {variable} names another cache") from error


def check_hash(name: str, content: bytes, expected: str) -> None:
    """Check the SHA-256 of what goes by this name in the message.

    Raises:
        WeightsError: it differs.
    """
    if (actual := sha256_hex(content)) != expected:
        raise WeightsError(f"{name} has SHA-256 {actual}, expected {expected}; it was not used")


def check_shapes(tensors: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check that every named tensor is there, in its shape.

    Raises:
        WeightsError: one is missing or has another shape.
    """
    for name, shape in shapes.items():
        found = tensors[name].shape if name in tensors else "no such tensor"
        if found != shape:
            raise WeightsError(f"weights: {name} should have shape {shape}, found {found}")


def sha256_hex(content: bytes) -> str:
    """SHA-256 of the content as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _read(path: str) -> bytes:
    if path.startswith("s3://"):
        return _read_from_store(path)
    try:
        # gcsfs reads gs:// without Beam, which takes seconds to import.
        with fsspec.open(path, "rb") as file:
            content: bytes = file.read()
            return content
    except FileNotFoundError as error:
        raise UnreadableWeightsError(f"cannot read the weights at {path}: there is no such file") from error
    except Exception as error:  # every file system of fsspec has errors of its own
        reason = " ".join(f"{error}".split()) or type(error).__name__
        raise UnreadableWeightsError(f"cannot read the weights at {path}: {reason}") from error


def _read_from_store(path: str) -> bytes:
    # Its client is the one that reads everything else there.
    from transforms.storage.errors import READ_ERRORS, describe
    from transforms.storage.whole_files import read_file

    try:
        return read_file(path)
    except (*READ_ERRORS, ValueError) as error:
        raise UnreadableWeightsError(f"cannot read the weights at {path}: {describe(error)}") from error
