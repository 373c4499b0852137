"""Input files: find them by patterns and open them, local or `gs://`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from transforms.storage.errors import READ_ERRORS, describe


@dataclass(frozen=True, order=True)
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


def _match(pattern: str) -> list[InputFile]:
    (result,) = FileSystems.match([pattern])
    # An object store may hold an empty object that stands for a directory.
    return [
        InputFile(found.path, found.size_in_bytes, found.last_updated_in_seconds)
        for found in result.metadata_list
        if not found.path.endswith("/")
    ]
