"""Images that a record holds as text: as base64, or as paths, whose files the worker fetches once a chunk is read."""

import base64
import binascii
import os
import posixpath
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from transforms.images.decode_error import DecodeError
from transforms.images.formats import sniff
from transforms.schema import Chunk, EncodedChunk, Failure, encoded_schema, pair_failure

REASONS = {
    "unreadable_image": "the file that the record names does not exist or cannot be read",
    "outside_root": "the path leads out of the manifest's directory, or of `--image_root`; it was not followed",
    "not_a_file": "the record names an http(s) address, which is not fetched, or no path at all",
    "changed_image": "the file no longer has the size that it had when the run started",
}

# Most of the time of reading from an object store is waiting.
_THREADS = 16
_EXTRA = (
    *(pa.field(name, pa.binary()) for name in ("generated_path", "target_path")),
    *(pa.field(name, pa.int64()) for name in ("generated_size", "target_size")),
)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{64,}={0,2}")
_DATA_URL = re.compile(r"data:[^,]{,100};base64,")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class PathError(ValueError):
    """A path that cannot be used: a key of `REASONS`, and a line for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class PathPair:
    """A record whose images are files.

    Attributes:
        id: of the pair.
        source: of the pair.
        generated: the generated image's path, or its bytes; None: a null in the record.
        target: the same of the target.
        kept: values of the kept fields.
        sizes: bytes that the two files must have; empty: any.
    """

    id: str
    source: str
    generated: str | bytes | None
    target: str | bytes | None
    kept: tuple[Any, ...] = ()
    sizes: tuple[int, ...] = ()


def resolve(path: str, root: str) -> str:
    """The path of an image that a manifest names, below `root`, local or `gs://`. Links are followed.

    Raises:
        PathError: the path leads out of `root`, or is none.
    """
    if not path or "\0" in path:
        raise PathError("not_a_file", f"{path!r} is not a path")
    if re.match(r"https?://", path, re.IGNORECASE):
        raise PathError("not_a_file", f"{path} is not fetched; download the images and name the files")
    store, base = _split(root)
    its_store, place = _split(path)
    if its_store or place.startswith("/"):
        inside = its_store == store
        place = posixpath.normpath(place)
    else:
        inside = True
        place = posixpath.normpath(posixpath.join(base, place))
    base = posixpath.normpath(base) if base else "."
    below = base.rstrip("/") + "/"
    up = place == ".." or place.startswith("../")
    if not inside or not (place.startswith(below) or (base == "." and not place.startswith("/") and not up)):
        raise PathError("outside_root", f"{path} leads out of {root or 'the current directory'}; see --image_root")
    return store + place


def from_base64(text: str) -> bytes | None:
    """The image that a text holds as base64, with or without a `data:` prefix; None if it holds none."""
    prefix = _DATA_URL.match(text)
    body = "".join(text[prefix.end() if prefix else 0 :].split())
    if not prefix and not _BASE64.fullmatch(body):
        return None
    try:
        data = base64.b64decode(
            body.rstrip("=") + "=" * (-len(body.rstrip("=")) % 4), b"-_" if "-" in body or "_" in body else None
        )
        if not prefix:
            sniff(data)
    except (binascii.Error, ValueError, DecodeError):
        return None
    return data


def named_chunk(
    chunk: Chunk, pairs: Sequence[PathPair], keep: Sequence[pa.Field], failures: Sequence[Failure] = ()
) -> EncodedChunk:
    """A chunk whose table has the images' paths and sizes in four columns more, until `fetch_images` reads the files.

    A format that parses untrusted bytes opens no other file.
    """
    rows = []
    for pair in pairs:
        images = [
            (from_base64(image) or image) if isinstance(image, str) else image
            for image in (pair.generated, pair.target)
        ]
        rows.append(
            (
                *(pair.id, pair.source),
                *(image if isinstance(image, bytes) else None for image in images),
                *pair.kept,
                *(os.fsencode(image) if isinstance(image, str) else None for image in images),
                *(pair.sizes or (None, None)),
            )
        )
    schema = pa.schema([*encoded_schema(keep), *_EXTRA])
    columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
    arrays = [pa.array(list(values), field.type) for values, field in zip(columns, schema, strict=True)]
    return EncodedChunk(chunk, pa.table(arrays, schema=schema), tuple(failures))


def fetch_images(encoded: EncodedChunk, root: str | None, keep: Sequence[pa.Field]) -> EncodedChunk:
    """Read the images of a `named_chunk`, each file once, however many pairs name it; another chunk is as it was.

    Args:
        encoded: the chunk.
        root: the directory that no path leads out of; None: the launcher named the files.
        keep: the kept fields.
    """
    table = encoded.pairs
    width = len(encoded_schema(keep))
    if table.num_columns < width + len(_EXTRA):
        return encoded
    failed = list(encoded.failures)
    paths: list[list[str | PathError | None]] = [
        [_resolved(path, root) for path in table.column(width + side).to_pylist()] for side in (0, 1)
    ]
    wanted = list(dict.fromkeys(path for side in paths for path in side if isinstance(path, str)))
    with ThreadPoolExecutor(_THREADS, "read_image") as pool:
        files = dict(zip(wanted, pool.map(_read, wanted), strict=True))
    images: list[list[bytes | None]] = [table.column(name).to_pylist() for name in ("generated", "target")]
    good = []
    for row in range(table.num_rows):
        try:
            for side in (0, 1):
                path, size = paths[side][row], table.column(width + 2 + side)[row].as_py()
                if path is not None:
                    images[side][row] = _checked(path, path if isinstance(path, PathError) else files[path], size)
            good.append(row)
        except PathError as error:
            id, source = table["id"][row].as_py(), table["source"][row].as_py()
            failed.append(pair_failure(id, source, "read", error.reason, str(error)))
    columns = table.columns[:width]
    columns[2:4] = [pa.array(side, pa.binary()) for side in images]
    fetched = pa.table(columns, schema=encoded_schema(keep))
    if "notes" in table.schema.names:
        fetched = fetched.append_column("notes", table["notes"])
    return EncodedChunk(encoded.chunk, fetched.take(pa.array(good, pa.int64())), tuple(failed))


def _resolved(path: bytes | None, root: str | None) -> str | PathError | None:
    if path is None:
        return None
    try:
        return os.fsdecode(path) if root is None else resolve(os.fsdecode(path), root)
    except PathError as error:
        return error


def _read(path: str) -> bytes | PathError:
    # Flags are made of the table of formats, without the seconds that Beam's import takes.
    from transforms.reading.input_files import open_input
    from transforms.storage.errors import READ_ERRORS, describe

    try:
        # Reading a pipe would wait for ever.
        if "://" not in path and os.path.exists(path) and not os.path.isfile(path):
            return PathError("unreadable_image", f"{path} is not a regular file")
        with open_input(path) as file:
            return file.read()
    except (*READ_ERRORS, ValueError) as error:
        return PathError("unreadable_image", f"the record's path {path} cannot be read: {describe(error)}")


def _checked(path: str | PathError, found: bytes | PathError, size: int | None) -> bytes:
    if isinstance(found, PathError):
        raise found
    if size is not None and len(found) != size:
        raise PathError("changed_image", f"{path} has {len(found)} bytes, but had {size} when the run started")
    return found


def _split(path: str) -> tuple[str, str]:
    """The scheme with the bucket's slashes, such as `gs://`, and the rest."""
    found = _SCHEME.match(path)
    return (found[0], path[found.end() :]) if found else ("", path)
