"""Images that a record names by paths: resolve the paths, read the files, and make the chunk of them."""

import os
import posixpath
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from transforms.schema import Chunk, EncodedChunk, Failure, encoded_schema, pair_failure

REASONS = {
    "unreadable_image": "the file that the record names does not exist or cannot be read",
    "outside_root": "the path leads out of the manifest's directory, or of `--image_root`; it was not followed",
    "not_a_file": "the record names an http(s) address, which is not fetched, or no path at all",
    "changed_image": "the file no longer has the size that it had when the run started",
}

# Most of the time of reading from an object store is waiting.
_THREADS = 16
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
        generated: the generated image's resolved path, or its bytes; None: a null in the record.
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


def read_pairs(
    chunk: Chunk, pairs: Sequence[PathPair], keep: Sequence[pa.Field], failures: Sequence[Failure] = ()
) -> EncodedChunk:
    """Read the images of a chunk, each file once, however many pairs name it.

    Args:
        chunk: the chunk.
        pairs: its records that could be read.
        keep: the kept fields.
        failures: its other records.
    """
    named = (image for pair in pairs for image in (pair.generated, pair.target) if isinstance(image, str))
    paths = list(dict.fromkeys(named))
    with ThreadPoolExecutor(_THREADS, "read_image") as pool:
        files = dict(zip(paths, pool.map(_read, paths), strict=True))
    rows: list[tuple[Any, ...]] = []
    failed = list(failures)
    for pair in pairs:
        images: list[bytes | None] = []
        try:
            for number, image in enumerate((pair.generated, pair.target)):
                size = pair.sizes[number : number + 1]
                images.append(_checked(image, files[image], size) if isinstance(image, str) else image)
            rows.append((pair.id, pair.source, *images, *pair.kept))
        except PathError as error:
            failed.append(pair_failure(pair.id, pair.source, "read", error.reason, str(error)))
    schema = encoded_schema(keep)
    columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
    arrays = [pa.array(list(values), field.type) for values, field in zip(columns, schema, strict=True)]
    return EncodedChunk(chunk, pa.table(arrays, schema=schema), tuple(failed))


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
        return PathError("unreadable_image", f"{path}: {describe(error)}")


def _checked(path: str, found: bytes | PathError, size: Sequence[int]) -> bytes:
    if isinstance(found, PathError):
        raise found
    if size and len(found) != size[0]:
        message = f"{path} has {len(found)} bytes, but had {size[0]} when the run started"
        raise PathError("changed_image", message)
    return found


def _split(path: str) -> tuple[str, str]:
    """The scheme with the bucket's slashes, such as `gs://`, and the rest."""
    found = _SCHEME.match(path)
    return (found[0], path[found.end() :]) if found else ("", path)
