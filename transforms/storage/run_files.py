"""The files of a run, local or in a store: where they lie, and how they are written whole, listed and deleted."""

import glob
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

from apache_beam.io.filesystem import CompressionTypes, FileMetadata
from apache_beam.io.filesystems import FileSystems
from apache_beam.io.localfilesystem import LocalFileSystem
from google.api_core.exceptions import GoogleAPICallError
from google.cloud.exceptions import from_http_response
from google.cloud.storage.retry import DEFAULT_RETRY

from transforms.schema import Chunk
from transforms.storage.errors import READ_ERRORS, describe
from transforms.storage.json_files import read_json, to_json
from transforms.storage.run_record import RunRecord

# How often a file is written if another run keeps deleting its temporary file before it is renamed.
_TRIES = 5
_UPLOADED_AT_ONCE = 16 << 20
# Two minutes for each request.
UPLOAD_RETRY = DEFAULT_RETRY


class ForeignDirectoryError(Exception):
    """The directory belongs to another run, or to none."""


@dataclass(frozen=True)
class RunFiles:
    """The files of a run below its output directory, local, `gs://` or `s3://`."""

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
        """The file that holds the number of pairs, from when all input files are listed until the run is finished."""
        return FileSystems.join(self.temporary, "listed.json")

    @property
    def workers_directory(self) -> str:
        """The directory in which worker processes tell what they do, while the run is at work."""
        return FileSystems.join(self.temporary, "workers")

    @property
    def owner(self) -> str:
        """The file that holds run.json without the identity, while the run is at work."""
        return FileSystems.join(self.temporary, "owner.json")

    @property
    def metrics_directory(self) -> str:
        return FileSystems.join(self.output, "metrics")

    def metrics_text_directory(self, format: str) -> str:
        """The directory of the metrics as text, such as `csv`, beside those in Parquet."""
        return FileSystems.join(self.output, f"metrics_{format}")

    @property
    def verdict(self) -> str:
        return FileSystems.join(self.output, "verdict.json")

    @property
    def report(self) -> str:
        return FileSystems.join(self.output, "report.html")

    @property
    def listing_directory(self) -> str:
        """The directory of the pairs of image files, if the run was given folders."""
        return FileSystems.join(self.output, "listing")

    @property
    def failures_directory(self) -> str:
        return FileSystems.join(self.output, "failures")

    @property
    def optimized_directory(self) -> str:
        return FileSystems.join(self.output, "optimized")

    def metrics(self, chunk: Chunk) -> str:
        """The chunk's metrics. They are written last: a chunk is done when this file exists."""
        return FileSystems.join(self.metrics_directory, f"{chunk.name}.parquet")

    def failures(self, chunk: Chunk) -> str:
        """The chunk's failures. A chunk without failures has no such file."""
        return FileSystems.join(self.failures_directory, f"{chunk.name}.jsonl")

    def write_record(self, record: RunRecord) -> None:
        """Write run.json, and `owner`.

        Raises:
            READ_ERRORS: (of `storage.errors`) one of them could not be written.
        """
        self.write_whole(self.config, to_json(record.to_json()))
        # Workers ask for the owner before each chunk, and run.json names every input file: that would be a square.
        self.write_whole(self.owner, to_json(replace(record, identity={}).to_json()))

    def read_record(self) -> RunRecord:
        """The content of run.json.

        Raises:
            READ_ERRORS: (of `storage.errors`) it cannot be read.
            ValueError: it is not the record of a run.
        """
        return RunRecord.from_json(read_json(self.config))

    def check_owner(self, fingerprint: str, claim: str = "") -> None:
        """Check, on a worker, that the directory belongs to this run, as this launcher has claimed it.

        On another machine a local path is another directory, and the worker would fill it with results that nobody
        finds. And a job may outlive its killed launcher while another one takes the directory.

        Raises:
            ForeignDirectoryError: it does not.
        """
        self._owned(self._read_owner, fingerprint, claim)

    def read_own_record(self, fingerprint: str, claim: str = "") -> RunRecord:
        """The content of run.json, checked as by `check_owner`. Raises ForeignDirectoryError."""
        return self._owned(self.read_record, fingerprint, claim)

    def _owned(self, read: Callable[[], RunRecord], fingerprint: str, claim: str) -> RunRecord:
        try:
            owner = read()
        except (*READ_ERRORS, ValueError) as error:
            raise ForeignDirectoryError(
                f"this worker, {socket.gethostname()}, cannot read {self.config}, which the launcher wrote: give an "
                f"--output that all workers share, such as a gs:// directory ({describe(error)})"
            ) from error
        if owner.fingerprint != fingerprint:
            raise ForeignDirectoryError(f"another run, with other settings or inputs, has taken {self.output}")
        if owner.claim != claim:
            raise ForeignDirectoryError(f"another launcher of the same run has taken {self.output}; this one ends")
        return owner

    def _read_owner(self) -> RunRecord:
        try:
            return RunRecord.from_json(read_json(self.owner))
        except READ_ERRORS:
            # The run has ended, and its temporary files are gone.
            return self.read_record()

    def write_whole(self, path: str, content: bytes) -> None:
        """Write a file so that it appears whole or not at all, replacing an older one.

        Raises:
            READ_ERRORS: (of `storage.errors`) it could not be written; an older file is still in place.
        """
        if FileSystems.get_filesystem(path).has_dirs():
            self._write_and_rename(path, content)
        else:
            # In an object store an object appears whole when its upload ends. A temporary name would only add a copy
            # and a deletion, which can fail.
            create_file(path, content)

    def delete_temporaries(self) -> None:
        """Delete what killed workers left. A live worker of a second run in the directory writes its file again."""
        if _is_local(self.temporary):
            # A file that such a worker is writing may be in the way. It does not belong to this run and may stay.
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
                    # Another run in this directory has finished in the meantime and deleted it.
                    continue
                delete_file(temporary)
                raise


def create_file(path: str, content: bytes) -> None:
    """Write a file, local or in a store. On failure, part of a local file may remain.

    Raises:
        READ_ERRORS: (of `storage.errors`) it could not be written.
    """
    if path.startswith("gs://"):
        _upload(path, content)
        return
    with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(content)
        # Close inside the block: if finishing the upload fails, leaving the block cancels it.
        file.close()
    if _is_local(path):
        _keep_through_power_failure(path)


def _upload(path: str, content: bytes) -> None:
    """Make an object of all of the content, or none.

    Beam's file for writing would not do: with google-cloud-storage 2 its parts become an object when it is left by an
    error, and it is uploaded again when it is garbage-collected.
    """
    bucket, _, name = path.removeprefix("gs://").partition("/")
    blob = FileSystems.get_filesystem(path)._gcsIO().client.bucket(bucket).blob(name, chunk_size=_UPLOADED_AT_ONCE)
    try:
        blob.upload_from_file(
            BytesIO(content), content_type="application/octet-stream", checksum="crc32c", retry=UPLOAD_RETRY
        )
    except GoogleAPICallError as error:
        # The error's text holds little more than a status; the answer of the service says why.
        raise (error if error.response is None else from_http_response(error.response)) from error


def _keep_through_power_failure(path: str) -> None:
    # Otherwise a renamed file may be empty after it.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Beam lists and deletes only by pattern, and its patterns miss local directories whose path holds `[`, `*` or `?`, even
# escaped. So Python handles local paths.


def list_files(directory: str, deep: bool = False) -> Iterator[str]:
    """The files in a directory, local or in a store, and with `deep` in those below it; none if it does not exist."""
    if _is_local(directory):
        found = Path(directory).glob("**/*" if deep else "*")
        yield from (FileSystems.join(directory, path.relative_to(directory)) for path in found if not path.is_dir())
        return
    yield from (found.path for found in _objects(directory, deep))


def list_times(directory: str) -> Iterator[tuple[str, float]]:
    """The files in a directory, local or in a store, and when each was written, in seconds since 1970."""
    if _is_local(directory):
        for path in list_files(directory):
            with suppress(FileNotFoundError):
                yield path, os.path.getmtime(path)
        return
    yield from ((found.path, found.last_updated_in_seconds) for found in _objects(directory))


def _objects(directory: str, deep: bool = False) -> Iterator[FileMetadata]:
    pattern = FileSystems.join(glob.escape(directory), "**" if deep else "*")
    # A store's console makes empty objects that stand for directories.
    yield from (found for found in FileSystems.match([pattern])[0].metadata_list if not found.path.endswith("/"))


def delete_file(path: str) -> None:
    """Delete a file, local or in a store, if it exists."""
    if not FileSystems.exists(path):
        return
    if _is_local(path):
        os.remove(path)
    else:
        FileSystems.delete([glob.escape(path)])


def delete_directory(path: str) -> None:
    """Delete a directory and everything in it, if it exists; in a store, every object with that prefix."""
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
            # Fine if another worker made it in the meantime. Object stores have no directories.
            if not FileSystems.exists(parent):
                raise
