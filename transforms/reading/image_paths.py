"""Images that a record names by paths: the chunk as a format reads it, and the images that the worker then fetches."""

import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa

from transforms.schema import Chunk, EncodedChunk, Failure, encoded_schema, row_failure

REASONS = {
    "unreadable_image": "the file that the record names does not exist or cannot be read",
    "outside_root": "the path leads out of the manifest's directory, or of `--image_root`; it was not followed",
    "not_a_file": "the record names an http(s) address, which is not fetched, or no path at all",
    "changed_image": "the file no longer has the size that it had when the run started",
}

# Most of the time of reading from an object store is waiting.
_THREADS = 16
_AT = pa.struct([("path", pa.binary()), ("start", pa.int64()), ("size", pa.int64())])
_EXTRA = tuple(pa.field(name, _AT) for name in ("generated_at", "target_at"))
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class RecordError(ValueError):
    """A record that cannot be used: a stable reason code, a line for people, and the offending bytes."""

    def __init__(self, reason: str, message: str, data: bytes | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.data = data


@dataclass(frozen=True)
class Place:
    """Where the bytes of an image lie.

    Attributes:
        path: of the file; empty: the chunk's own.
        start: offset in the file; None: the image is the whole file.
        size: bytes that the image must have; None: any.
    """

    path: str
    start: int | None = None
    size: int | None = None


# Offset and number of bytes; -1: all.
Range = tuple[int, int]

# Bytes, their place, or a null.
Image = bytes | Place | None


@dataclass(frozen=True)
class NamedPair:
    """A pair as its record gives it.

    Attributes:
        id: of the pair.
        source: of the pair.
        generated: the generated image.
        target: its target.
        kept: values of the kept fields.
    """

    id: str
    source: str
    generated: Image
    target: Image
    kept: tuple[Any, ...] = ()


def resolve(path: str, root: str) -> str:
    """The path of an image that a manifest names, below `root`, local or `gs://`. Links are followed.

    Raises:
        RecordError: the path leads out of `root`, or is none.
    """
    if not path or "\0" in path:
        raise RecordError("not_a_file", f"{path!r} is not a path")
    if re.match(r"https?://", path, re.IGNORECASE):
        raise RecordError("not_a_file", f"{path} is not fetched; download the images and name the files")
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
        raise RecordError("outside_root", f"{path} leads out of {root or 'the current directory'}; see --image_root")
    return store + place


def named_chunk(
    chunk: Chunk, pairs: Sequence[NamedPair], keep: Sequence[pa.Field], failures: Sequence[Failure] = ()
) -> EncodedChunk:
    """A chunk of these pairs; if images are places, they are in two more columns until `fetch_images` reads them.

    A format that parses untrusted bytes opens no other file.
    """
    sides = [[pair.generated for pair in pairs], [pair.target for pair in pairs]]
    kept = [pa.array([pair.kept[index] for pair in pairs], field.type) for index, field in enumerate(keep)]
    columns = [
        pa.array([pair.id for pair in pairs], pa.string()),
        pa.array([pair.source for pair in pairs], pa.string()),
        *(_bytes_once([image if isinstance(image, bytes) else None for image in side]) for side in sides),
        *kept,
    ]
    schema = encoded_schema(keep)
    if any(isinstance(image, Place) for side in sides for image in side):
        columns += [pa.array([_row_of(image) for image in side], _AT) for side in sides]
        schema = pa.schema([*schema, *_EXTRA])
    return EncodedChunk(chunk, _table(columns, schema), tuple(failures))


def fetch_images(encoded: EncodedChunk, root: str | None, keep: Sequence[pa.Field]) -> EncodedChunk:
    """Read the images of a `named_chunk`, each once, however many pairs name it; another chunk is as it was.

    Args:
        encoded: the chunk.
        root: the directory that no path leads out of; None: the launcher named the files.
        keep: the kept fields.
    """
    table = encoded.pairs
    width = len(encoded_schema(keep))
    if _EXTRA[0].name not in table.schema.names:
        return encoded
    failed = list(encoded.failures)
    places = [[_resolved(at, encoded.chunk, root) for at in table[field.name].to_pylist()] for field in _EXTRA]
    wanted: dict[str, set[Range]] = defaultdict(set)
    for found in chain(*places):
        if isinstance(found, Place):
            wanted[found.path].add(_range(found))
    with ThreadPoolExecutor(_THREADS, "read_image") as pool:
        files = dict(zip(wanted, pool.map(_read, wanted, wanted.values()), strict=True))
    images: list[list[bytes | None]] = [table.column(name).to_pylist() for name in ("generated", "target")]
    good = []
    for row in range(table.num_rows):
        try:
            for side in (0, 1):
                place = places[side][row]
                if place is not None:
                    images[side][row] = _checked(place, files)
            good.append(row)
        except RecordError as error:
            failed.append(row_failure(table, row, "read", error.reason, str(error)))
    columns = table.columns[:width]
    columns[2:4] = [_bytes_once(side) for side in images]
    fetched = _table(columns, encoded_schema(keep))
    if "notes" in table.schema.names:
        fetched = fetched.append_column("notes", table["notes"])
    return EncodedChunk(encoded.chunk, fetched.take(pa.array(good, pa.int64())), tuple(failed))


def _bytes_once(images: Sequence[bytes | None]) -> pa.Array:
    """The images as an array; as a dictionary where one object, such as the target of candidates, stands repeatedly."""
    distinct = {id(image): image for image in images}
    if len(distinct) == len(images):
        return pa.array(images, pa.binary())
    position = {key: index for index, key in enumerate(distinct)}
    indices = pa.array([None if image is None else position[id(image)] for image in images], pa.int32())
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(distinct.values()), pa.binary()))


def _table(columns: Sequence[pa.Array], schema: pa.Schema) -> pa.Table:
    """A table of the schema, but for images that are a dictionary."""
    for index in (2, 3):
        schema = schema.set(index, schema.field(index).with_type(columns[index].type))
    return pa.table(list(columns), schema=schema)


def _row_of(image: Image) -> dict[str, Any] | None:
    if not isinstance(image, Place):
        return None
    return {"path": os.fsencode(image.path), "start": image.start, "size": image.size}


def _resolved(at: Mapping[str, Any] | None, chunk: Chunk, root: str | None) -> Place | RecordError | None:
    if at is None:
        return None
    path, start, size = os.fsdecode(at["path"]), at["start"], at["size"]
    if not path and start is not None:
        return Place(chunk.path, start, size)
    try:
        return Place(path if root is None else resolve(path, root), start, size)
    except RecordError as error:
        return error


def _range(place: Place) -> Range:
    return (0, -1) if place.start is None else (place.start, -1 if place.size is None else place.size)


def _read(path: str, ranges: Iterable[Range]) -> dict[Range, bytes | RecordError]:
    """These ranges of a file, opened once, or why they cannot be read."""
    # Flags are made of the table of formats, without the seconds that Beam's import takes.
    from transforms.reading.input_files import open_input
    from transforms.storage.errors import READ_ERRORS, describe

    try:
        # Reading a pipe would wait for ever.
        if "://" not in path and os.path.exists(path) and not os.path.isfile(path):
            return dict.fromkeys(ranges, RecordError("unreadable_image", f"{path} is not a regular file"))
        found: dict[Range, bytes | RecordError] = {}
        with open_input(path) as file:
            for start, size in sorted(ranges):
                file.seek(start)
                found[start, size] = file.read(size)
        return found
    except (*READ_ERRORS, ValueError) as error:
        return dict.fromkeys(ranges, RecordError("unreadable_image", f"{path}: {describe(error)}"))


def _checked(place: Place | RecordError, files: Mapping[str, Mapping[Range, bytes | RecordError]]) -> bytes:
    if isinstance(place, RecordError):
        raise place
    found = files[place.path][_range(place)]
    if isinstance(found, RecordError):
        raise found
    if place.size is not None and len(found) != place.size:
        raise RecordError(
            "changed_image", f"{place.path} has {len(found)} bytes, but had {place.size} when the run started"
        )
    return found


def _split(path: str) -> tuple[str, str]:
    """The scheme with the bucket's slashes, such as `gs://`, and the rest."""
    found = _SCHEME.match(path)
    return (found[0], path[found.end() :]) if found else ("", path)
