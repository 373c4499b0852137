"""Input files: find them by patterns and open them, local or `gs://`."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from transforms.storage.errors import READ_ERRORS, describe


@dataclass(frozen=True, order=True, slots=True)
class InputFile:
    """A file to score.

    Attributes:
        path: local or `gs://`.
        size: bytes.
        modified: seconds since the epoch; 0 where the file system does not say.
    """

    path: str
    size: int
    modified: float


def match_files(patterns: Sequence[str]) -> list[InputFile]:
    """Find the files that the patterns match, sorted by path, each once.

    `*` and `?` stay inside a directory, `**` crosses directories.

    Raises:
        ValueError: a pattern matches nothing, is a directory, or cannot be looked up.
    """
    files: dict[str, InputFile] = {}
    for pattern in patterns:
        try:
            found = _match(pattern)
            is_directory = os.path.isdir(pattern) or (not found and _match(f"{pattern.rstrip('/')}/*"))
        except READ_ERRORS as error:
            raise ValueError(f"input {pattern!r} cannot be looked up: {describe(error)}") from error
        if is_directory:
            raise ValueError(
                f"input {pattern!r} is a directory: name its files, e.g. '{pattern.rstrip('/')}/*.parquet'"
            )
        if not found:
            raise ValueError(f"input {pattern!r} matches no file")
        files.update((file.path, file) for file in found)
    return sorted(files.values())


def open_input(path: str) -> BinaryIO:
    """Open a local or `gs://` file for reading as it is, without unpacking. Raises one of `READ_ERRORS`."""
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


def is_directory(path: str) -> bool:
    """True for a local directory, and for a prefix of objects at `gs://` that is no object. Raises `READ_ERRORS`."""
    return not FileSystems.exists(path) if "://" in path else os.path.isdir(path)


def files_below(prefix: str, depth: int | None) -> Iterator[InputFile]:
    """The files whose paths begin with `prefix`, in no order, without looking at what is in them.

    Args:
        prefix: local or `gs://`.
        depth: most directories to go down from that of the prefix; None: all, but into no linked directory.

    Raises:
        READ_ERRORS: they cannot be listed.
    """
    if "://" in prefix:
        yield from _match(f"{glob.escape(prefix)}**")
        return
    folder = f"{prefix.rpartition('/')[0]}/" if "/" in prefix else ""
    if os.path.isdir(folder or "."):
        yield from (file for file in _walk(folder, depth) if file.path.startswith(prefix))


def _walk(folder: str, depth: int | None) -> Iterator[InputFile]:
    with os.scandir(folder or ".") as entries:
        for entry in entries:
            path = folder + entry.name
            if entry.is_file():
                found = entry.stat()
                yield InputFile(path, found.st_size, found.st_mtime)
            elif depth != 0 and entry.is_dir(follow_symlinks=depth is not None):
                yield from _walk(f"{path}/", None if depth is None else depth - 1)


def _match(pattern: str) -> list[InputFile]:
    (result,) = FileSystems.match([pattern])
    # An object store may hold an empty object that stands for a directory.
    return [
        InputFile(found.path, found.size_in_bytes, found.last_updated_in_seconds)
        for found in result.metadata_list
        if not found.path.endswith("/")
    ]
