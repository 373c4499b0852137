"""Input files: find them by patterns, open them, and notice if they change. Local, `gs://` or `s3://`."""

import glob
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, BinaryIO, cast
from urllib.parse import unquote

from apache_beam.io.filesystem import CompressionTypes, FileMetadata, FileSystem
from apache_beam.io.filesystems import FileSystems
from google.api_core.exceptions import GoogleAPIError
from google.auth.exceptions import GoogleAuthError

from transforms.reading.fixed_path import fixed_part
from transforms.storage.errors import READ_ERRORS, ChangedError, UnavailableError, describe

_MAGIC = re.compile(r"[*?\[{]")
_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")
_ANY_DEPTH = re.compile(r"(?<![^/])\*\*/")
# Other programs leave these beside data: dot files, checksums, and marks such as _SUCCESS and _metadata.
_NOT_DATA = re.compile(r"\..*|_[^.]*|.*\.crc", re.DOTALL)
_NOT_DATA_DIRECTORY = re.compile(r"\..*|_temporary|_delta_log|_spark_metadata", re.DOTALL)
# Beam needs these for the paths of a scheme: the module, and Beam's extra that installs it.
_EXTRAS = {"azfs": ("azure", "azure"), "hdfs": ("hdfs", "hadoop")}

# No file is as large, and no date as late.
_BEYOND_ANY = 2**63


@dataclass(frozen=True, order=True, slots=True)
class InputFile:
    """A file to score.

    Attributes:
        path: local, `gs://` or `s3://`, as the user spells it.
        size: bytes.
        modified: seconds since the epoch; 0 where the file system does not say.
        label: what names the file in ids: its path below the fixed part of the pattern that found it.
        etag: of its content, where the store tells it.
    """

    path: str
    size: int
    modified: float
    label: str = ""
    etag: str = ""

    @property
    def version(self) -> str:
        """Differs if the file was replaced or written to; empty if its time is not known."""
        if self.etag:
            return f"{self.size} bytes with the ETag {self.etag}"
        return f"{self.size} bytes of {self.modified!r}" if self.modified else ""


def match_files(patterns: Sequence[str]) -> list[InputFile]:
    """Find the files that the patterns match, sorted by path, each once however often and however it is spelled.

    `*` and `?` stay inside a directory, `**` crosses directories and follows links, `**/` is also no directory at all,
    `{a,b}` is either. A path that exists is taken as it is, whatever characters it holds. Dot files, `.crc` and marks
    such as `_SUCCESS` are not data.

    Raises:
        ValueError: a pattern matches nothing, or a pipe or a device, is a directory, or cannot be looked up.
    """
    files: dict[str, InputFile] = {}
    for pattern in patterns:
        if pattern.startswith("file://"):
            pattern = unquote(pattern.removeprefix("file://"), errors="surrogateescape")
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
        for file in found:
            files.setdefault(file.path if "://" in file.path else os.path.realpath(file.path), file)
    # Earlier patterns keep their labels, so that another directory renames nobody.
    labels: dict[str, InputFile] = {}
    for file in files.values():
        label = file.path if file.label in labels else file.label
        labels[label] = replace(file, label=label)
    return sorted(labels.values())


def files_of(identity: Mapping[str, Any]) -> Iterator[InputFile]:
    """The input files of a run, from the identity in its run.json.

    Raises:
        ValueError: it does not name them as a run does.
    """
    try:
        for entry in identity["input"]:
            file = InputFile(**entry)
            texts, numbers = (file.path, file.label, file.etag), (file.size, file.modified)
            if not all(isinstance(text, str) for text in texts) or not all(0 <= n < _BEYOND_ANY for n in numbers):
                raise TypeError(f"the file {entry}")
            yield file
    except (KeyError, TypeError) as error:
        raise ValueError(f"its input files are not those of a run: {error}") from error


def open_input(path: str, version: str = "") -> BinaryIO:
    """Open a file, local or in a store, as it is, without unpacking.

    Args:
        path: of the file.
        version: `InputFile.version` that it must have; empty: any.

    Raises:
        UnavailableError: it cannot be opened; reading raises the same.
        ChangedError: it has another version.
        READ_ERRORS: (of `storage.errors`) anything else.
    """
    check_version(path, version)
    with _access():
        return cast(BinaryIO, _Opened(FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)))


def check_version(path: str, version: str) -> None:
    """Check that a file still has the version, if one is given. Raises ChangedError or UnavailableError."""
    with _access():
        now = version and look_up(path).version
    if now != version:
        raise ChangedError(f"the file has changed since it was listed: {now} now, {version} then")


class _Opened:
    """An opened file that tells errors of its store from damage in it, which only whoever parses it can find."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_Opened":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        with _access():
            return self._file.read(size)


@contextmanager
def _access() -> Iterator[None]:
    try:
        yield
    except (OSError, GoogleAPIError, GoogleAuthError) as error:
        raise UnavailableError(str(error)) from error


def look_up(path: str) -> InputFile:
    """The file at a path, local or in a store, whatever characters it holds. Raises `READ_ERRORS`."""
    if "://" not in path:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            # To open a pipe would wait for ever.
            raise OSError(f"{path} is a pipe or a device; copy what it holds into a file")
        return InputFile(path, found.st_size, found.st_mtime, os.path.basename(path))
    return _in_store(FileSystems.get_filesystem(path).metadata(path), path.rpartition("/")[2])


def is_directory(path: str) -> bool:
    """True for a local directory, and for a store's prefix that is not itself an object. Raises `READ_ERRORS`."""
    return not FileSystems.exists(path) if "://" in path else os.path.isdir(path)


def files_below(prefix: str, depth: int | None) -> Iterator[InputFile]:
    """The files whose paths begin with `prefix`, in no order, without looking at what is in them.

    Links are followed, not in circles. What cannot be read, such as a link to nowhere or a pipe, has no size, so that
    whoever reads it reports it.

    Args:
        prefix: local or in a store.
        depth: most directories to go down from that of the prefix; None: all.

    Raises:
        READ_ERRORS: they cannot be listed.
    """
    if "://" in prefix:
        (result,) = FileSystems.match([f"{glob.escape(prefix)}**"])
        for found in result.metadata_list:
            # An object store may hold an empty object that stands for a directory.
            if not found.path.endswith("/"):
                yield _in_store(found)
        return
    folder = f"{prefix.rpartition('/')[0]}/" if "/" in prefix else ""
    for path in _walk(folder, "", depth, ()):
        if (folder + path).startswith(prefix):
            yield _as_far_as_known(folder + path)


def is_inside(path: str, directory: str) -> bool:
    """Tell whether a path lies below a directory, local or in a store."""
    if "://" in path or "://" in directory:
        return path.startswith(f"{directory}/")
    return os.path.abspath(path).startswith(f"{os.path.abspath(directory)}/")


def _as_far_as_known(path: str) -> InputFile:
    try:
        return look_up(path)
    except OSError:
        return InputFile(path, 0, 0.0)


def _in_store(found: FileMetadata, label: str = "") -> InputFile:
    etag = getattr(found, "etag", "")
    return InputFile(found.path, found.size_in_bytes, found.last_updated_in_seconds, label, etag)


def _match(pattern: str) -> list[InputFile]:
    if "://" not in pattern:
        return [] if os.path.isdir(pattern) else _match_local(pattern)
    scheme = pattern.partition("://")[0]
    module, extra = _EXTRAS.get(scheme, ("", ""))
    if module and not find_spec(module):
        raise ValueError(f"input {pattern!r}: {scheme}:// needs a library; install apache-beam[{extra}]")
    try:
        system = FileSystems.get_filesystem(pattern)
    except ValueError as error:
        raise ValueError(
            f"input {pattern!r}: nothing reads {scheme}://; download it, or name files here, at gs:// or at s3://"
        ) from error
    if re.search(r"[\[{]", pattern) and system.exists(pattern):
        return [look_up(pattern)]
    fixed = len(_MAGIC.split(pattern)[0].rpartition("/")[0]) + 1
    return [
        _in_store(found, found.path[fixed:])
        for one in _expand(pattern)
        for found in FileSystems.match([one])[0].metadata_list
        # An object store may hold an empty object that stands for a directory.
        if not found.path.endswith("/") and (one == found.path or _is_data(found.path[fixed:], pattern))
    ]


def _match_local(pattern: str) -> list[InputFile]:
    root = fixed_part(pattern)
    rest = pattern.removeprefix(root)
    if not _MAGIC.search(rest):
        return [look_up(pattern)] if os.path.exists(pattern) else []
    wanted = [re.compile(FileSystem.translate_pattern(one)) for one in _expand(rest)]
    depth = None if "**" in rest else max(one.count("/") for one in _expand(rest))
    found = (path for path in _walk(root, "", depth, ()) if any(one.match(path) for one in wanted))
    return [replace(look_up(root + path), label=path) for path in found if _is_data(path, pattern)]


def _walk(root: str, below: str, depth: int | None, above: tuple[str, ...]) -> Iterator[str]:
    """The files in a directory, and in those below it, as paths from the root. Links are followed, not in circles."""
    here = root + below
    real = os.path.realpath(here or ".")
    if real in above or not os.path.isdir(real):
        return
    with os.scandir(here or ".") as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not _is_directory(entry):
                yield below + entry.name
            elif depth is None or depth > below.count("/"):
                yield from _walk(root, f"{below}{entry.name}/", depth, (*above, real))


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link to itself: whoever reads it reports it.
        return False


def _is_data(path: str, pattern: str) -> bool:
    """True if a file that matches a pattern is data. A name that the pattern itself spells out always is."""
    *directories, name = path.split("/")
    *_, typed = pattern.split("/")
    if any(map(_NOT_DATA_DIRECTORY.fullmatch, directories)) and not re.search(r"(^|/)[._]", pattern):
        return False
    return not _NOT_DATA.fullmatch(name) or typed[:1] in (".", "_") or typed.endswith(".crc")


def _expand(pattern: str) -> list[str]:
    """The patterns that a pattern stands for: without braces, and with each `**/` or without it."""
    if found := _BRACES.search(pattern):
        ends = pattern[: found.start()], pattern[found.end() :]
        return [one for middle in found[1].split(",") for one in _expand(middle.join(ends))]
    if not (found := _ANY_DEPTH.search(pattern)):
        return [pattern]
    before, after = pattern[: found.start()], _expand(pattern[found.end() :])
    return [before + depth + one for one in after for depth in ("", found[0])]
