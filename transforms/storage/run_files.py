"""The files of a run, local or `gs://`: where they lie, and how they are written whole, listed and deleted."""

import glob
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.io.localfilesystem import LocalFileSystem
from google.cloud.exceptions import from_http_response
from google.cloud.storage.exceptions import InvalidResponse

from transforms.schema import METRICS_FORMATS, Chunk
from transforms.storage.errors import READ_ERRORS, describe

# How often a file is written whose temporary one another run deletes before it is renamed.
_TRIES = 5


class ForeignDirectoryError(Exception):
    """The directory is not that of the run."""


@dataclass(frozen=True)
class RunFiles:
    """The files of a run below its output directory, local or `gs://`."""

    output: str

    @property
    def config(self) -> str:
        return FileSystems.join(self.output, "run.json")

    @property
    def summary(self) -> str:
        return FileSystems.join(self.output, "summary.json")

    @property
    def success(self) -> str:
        return FileSystems.join(self.output, "_SUCCESS")

    @property
    def temporary(self) -> str:
        return FileSystems.join(self.output, "_temporary")

    @property
    def listed(self) -> str:
        """Tells how many pairs there are, while the run goes on and once all files are listed."""
        return FileSystems.join(self.temporary, "listed.json")

    @property
    def chunk_directories(self) -> tuple[str, ...]:
        """The directories that hold the files of chunks."""
        text = (self.metrics_text_directory(format) for format in METRICS_FORMATS[1:])
        return self.metrics_directory, *text, self.failures_directory, self.optimized_directory

    @property
    def metrics_directory(self) -> str:
        return FileSystems.join(self.output, "metrics")

    def metrics_text_directory(self, format: str) -> str:
        """Where the metrics lie as text, beside those in Parquet; `format` is `csv` or `jsonl`."""
        return FileSystems.join(self.output, f"metrics_{format}")

    @property
    def verdict(self) -> str:
        return FileSystems.join(self.output, "verdict.json")

    @property
    def report(self) -> str:
        return FileSystems.join(self.output, "report.html")

    @property
    def failures_directory(self) -> str:
        return FileSystems.join(self.output, "failures")

    @property
    def optimized_directory(self) -> str:
        return FileSystems.join(self.output, "optimized")

    def metrics(self, chunk: Chunk) -> str:
        """The chunk's metrics. Written last of its files: a chunk is done when this one is there."""
        return FileSystems.join(self.metrics_directory, f"{chunk.name}.parquet")

    def failures(self, chunk: Chunk) -> str:
        """The chunk's failures; there is no such file where there are none."""
        return FileSystems.join(self.failures_directory, f"{chunk.name}.jsonl")

    def check_owner(self, fingerprint: str) -> None:
        """Check, on a worker, that this is the directory of its own run.

        Elsewhere than on the launcher a local path is another directory, and the worker would fill it with results
        that nobody finds. And where a launcher was killed, its job may go on while another run takes the directory.

        Raises:
            ForeignDirectoryError: it is not.
        """
        try:
            owner = read_json(self.config)["fingerprint"]
        except (*READ_ERRORS, ValueError, LookupError, TypeError) as error:
            raise ForeignDirectoryError(
                f"this worker, {socket.gethostname()}, cannot read {self.config}, which the launcher wrote: give an "
                f"--output that all workers share, such as a gs:// directory ({describe(error)})"
            ) from error
        if owner != fingerprint:
            raise ForeignDirectoryError(f"another run, with other settings or inputs, has taken {self.output}")

    def write_whole(self, path: str, content: bytes) -> None:
        """Write a file so that it is there whole or not at all, replacing an older one.

        Raises:
            READ_ERRORS: (of `storage.errors`) it could not be written; what was at the path before is still there.
        """
        if FileSystems.get_filesystem(path).has_dirs():
            self._write_and_rename(path, content)
        else:
            # In an object store an object appears when its upload ends, and the upload has all of the content from
            # its beginning. A temporary name would only add a copy and a deletion that can fail.
            create_file(path, content)

    def delete_temporaries(self) -> None:
        """Delete what killed workers have left. A live one, of a second run in the directory, writes again."""
        if _is_local(self.temporary):
            # What such a worker is just writing may stand in the way. It is no part of the run: let it stay.
            shutil.rmtree(self.temporary, ignore_errors=True)
        else:
            delete_directory(self.temporary)

    def _write_and_rename(self, path: str, content: bytes) -> None:
        for tries_left in reversed(range(_TRIES)):
            temporary = FileSystems.join(self.temporary, uuid.uuid4().hex)
            try:
                create_file(temporary, content)
                _make_parent(path)
                FileSystems.rename([temporary], [path])
                return
            except OSError:
                if tries_left and not FileSystems.exists(temporary):
                    # Another run in this directory has ended in between, and tidied up.
                    continue
                delete_file(temporary)
                raise


def read_json(path: str) -> dict[str, Any]:
    """The content of a JSON file, local or `gs://`."""
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        content: dict[str, Any] = json.loads(file.read())
    return content


def create_file(path: str, content: bytes) -> None:
    """Write a file, local or `gs://`; a local one may be there in part if that fails.

    Raises:
        READ_ERRORS: (of `storage.errors`) it could not be written.
    """
    try:
        with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            file.write(content)
            # Here, and not on the way out: an upload whose end fails is cancelled then. Left open, the file would try
            # again, for two minutes, when its memory is freed.
            file.close()
    except InvalidResponse as error:
        # It tells a status alone, and is no error of the API, as which everything else that is refused comes.
        raise from_http_response(error.response) from error


# Beam lists and deletes by pattern alone. Its patterns miss local directories whose path holds `[`, `*` or `?`, even
# escaped; so local paths are left to Python.


def list_files(directory: str, deep: bool = False) -> Iterator[str]:
    """The files in a directory, if it is there, local or `gs://`; `deep`: and in those below it."""
    if _is_local(directory):
        found = Path(directory).glob("**/*" if deep else "*")
        yield from (FileSystems.join(directory, path.relative_to(directory)) for path in found if not path.is_dir())
        return
    pattern = FileSystems.join(glob.escape(directory), "**" if deep else "*")
    yield from (metadata.path for metadata in FileSystems.match([pattern])[0].metadata_list)


def delete_file(path: str) -> None:
    """Delete a file, local or `gs://`, if it is there."""
    if not FileSystems.exists(path):
        return
    if _is_local(path):
        os.remove(path)
    else:
        FileSystems.delete([glob.escape(path)])


def delete_directory(path: str) -> None:
    """Delete a directory, if it is there, and what is in it, local or `gs://`, where it is but a prefix."""
    if _is_local(path):
        if os.path.isdir(path):
            shutil.rmtree(path)
    elif inside := list(list_files(path, deep=True)):
        FileSystems.delete([glob.escape(file) for file in inside])


def _is_local(path: str) -> bool:
    return isinstance(FileSystems.get_filesystem(path), LocalFileSystem)


def _make_parent(path: str) -> None:
    parent = FileSystems.split(path)[0]
    if not FileSystems.exists(parent):
        try:
            FileSystems.mkdirs(parent)
        except OSError:
            # Another worker made it in between, which is as good; object stores have no directories.
            if not FileSystems.exists(parent):
                raise
