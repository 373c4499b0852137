"""The files of a run, local or `gs://`: where they lie, and how they are written whole, listed and deleted."""

import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.io.localfilesystem import LocalFileSystem

from transforms.schema import METRICS_FORMATS, Chunk


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

    def write_whole(self, path: str, content: bytes) -> None:
        """Write a file so that it is there whole or not at all, replacing an older one.

        Raises:
            OSError: it could not be written or renamed; the temporary file is gone then, where that is possible.
        """
        temporary = FileSystems.join(self.temporary, uuid.uuid4().hex)
        try:
            with FileSystems.create(temporary, compression_type=CompressionTypes.UNCOMPRESSED) as file:
                file.write(content)
            _make_parent(path)
            FileSystems.rename([temporary], [path])
        except OSError:
            delete_file(temporary)
            raise


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
