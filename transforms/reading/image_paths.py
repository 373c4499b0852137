"""Images that records hold or name: the chunk as a format reads it, and the images that the worker then fetches."""

import math
import os
import posixpath
import re
from base64 import b64decode
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from itertools import chain
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from transforms.images.decode_error import DecodeError
from transforms.images.formats import sniff
from transforms.reading.record_error import RecordError
from transforms.reading.zip_members import ZipMember, read_member
from transforms.schema import Chunk, EncodedChunk, Failure, Fields, encoded_schema, row_failure

REASONS = {
    "unreadable_image": "the file that the record names does not exist or cannot be read",
    "outside_root": "the path leads out of the manifest's directory, or of `--image_root`; it was not followed",
    "not_a_file": "the record names an http(s) address, which is not fetched, or no path at all",
    "wrong_shape": "the numbers are not an array of the declared or of any shape",
    "not_base64": "the text begins with `data:`, but no base64 follows",
    "changed_image": "the file no longer has the size that it had when the run started",
}

# Most of the time of reading from an object store is waiting.
_THREADS = 16
_AT = pa.struct([("path", pa.binary()), *((name, pa.int64()) for name in ("start", "size", "packed", "crc"))])
_EXTRA = tuple(pa.field(name, _AT) for name in ("generated_at", "target_at"))
# How base64 begins that may be an image's; a path seldom does.
BASE64_START = r"^\s*(data:|[A-Za-z0-9+/_-]{64})"
_START_BYTES = 1000
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True)
class Place:
    """Where the bytes of an image lie.

    Attributes:
        path: of the file; empty: the chunk's own.
        start: offset in the file; None: the image is the whole file.
        size: bytes that the image must have; None: any.
        packed: bytes in the file if the image is a member of a zip file, whose header begins at `start`.
        crc: of such a member.
    """

    path: str
    start: int | None = None
    size: int | None = None
    packed: int | None = None
    crc: int | None = None


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


def image_of(value: Any, name: str, fields: Fields) -> Image:
    """The image that a value of a record holds or names.

    Args:
        value: bytes, base64, a path, a mapping with `bytes` or `path`, a list of one of these, an array, or null.
        name: of its field.
        fields: say what arrays are.

    Raises:
        RecordError: it is none of these.
    """
    if isinstance(value, Mapping):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, list) and value and isinstance(value[0], int | float | list):
        value = _array(value)
    if isinstance(value, np.ndarray):
        return _npy(value, fields)
    if isinstance(value, list) and len(value) > 1:
        raise RecordError("wrong_type", f"field {name!r} holds several values, one is needed")
    if isinstance(value, list):
        return image_of(value[0], name, fields) if value else None
    if value is None:
        return None
    if not isinstance(value, str | bytes):
        raise RecordError("wrong_type", f"field {name!r} holds {value!r:.100}, neither bytes nor a path")
    # Bytes that are numbers may look like text.
    if isinstance(value, str) or not fields.array_type:
        image = _from_base64(value, name, fields)
        if image is None:
            return Place(value) if isinstance(value, str) else value
        value = image
    if fields.array_type:
        dtype = np.dtype(fields.array_type).newbyteorder("<")
        if len(value) % dtype.itemsize:
            raise RecordError("wrong_shape", f"{len(value)} bytes are no whole number of {fields.array_type}", value)
        return _npy(np.frombuffer(value, dtype), fields)
    return value


def _from_base64(value: str | bytes, name: str, fields: Fields) -> bytes | None:
    """The image, or the array, that a text holds as base64; None if it holds none.

    Raises:
        RecordError: a `data:` address without base64.
    """
    head = value[:_START_BYTES].decode("latin-1") if isinstance(value, bytes) else value
    if not re.match(BASE64_START, head):
        return None
    text = (value if isinstance(value, str) else value.decode("latin-1")).strip()
    is_address = text.startswith("data:")
    body = "".join((text.partition(",")[2] if is_address else text).split()).rstrip("=")
    try:
        image = b64decode(body.replace("-", "+").replace("_", "/") + "=" * (-len(body) % 4), validate=True)
    except ValueError:
        image = b""
    if is_address and not image:
        raise RecordError("not_base64", f"field {name!r} holds {text!r:.50}..., which is not base64")
    return image if is_address or (image and fields.array_type) or _is_known(image) else None


def _is_known(image: bytes) -> bool:
    try:
        sniff(image)
    except DecodeError as error:
        return error.reason != "unknown_format"
    return True


def _array(values: list[Any]) -> np.ndarray:
    try:
        array = np.array(values)
    except ValueError as error:
        raise RecordError("wrong_shape", f"the lists have different lengths: {error}") from error
    return array


def _npy(array: np.ndarray, fields: Fields) -> bytes:
    """An array as the bytes of a .npy file, which are decoded as an image."""
    if array.dtype.kind not in "fiu":
        raise RecordError("wrong_type", f"an array of {array.dtype}, numbers are needed")
    if array.ndim == 1:
        if math.prod(fields.shape) != len(array):
            wanted = fields.array_shape or "no shape; declare --array_shape"
            raise RecordError("wrong_shape", f"{len(array)} numbers are not an array of {wanted}")
        array = array.reshape(fields.shape)
    file = BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


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
    wanted: dict[str, set[Place]] = defaultdict(set)
    for found in chain(*places):
        if isinstance(found, Place):
            wanted[found.path].add(_to_read(found))
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
    distinct = {id(image): image for image in images if image is not None}
    if len(distinct) + images.count(None) == len(images):
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
    return {**asdict(image), "path": os.fsencode(image.path)}


def _resolved(at: Mapping[str, Any] | None, chunk: Chunk, root: str | None) -> Place | RecordError | None:
    if at is None:
        return None
    place = Place(**{**at, "path": os.fsdecode(at["path"])})
    if not place.path and place.start is not None:
        return replace(place, path=chunk.path)
    try:
        return place if root is None else replace(place, path=resolve(place.path, root))
    except RecordError as error:
        return error


def _to_read(place: Place) -> Place:
    """The place without the size that a whole file must have, which does not change what is read."""
    return replace(place, size=None) if place.start is None else place


def _read(path: str, places: Iterable[Place]) -> dict[Place, bytes | RecordError]:
    """These parts of a file, opened once, or why they cannot be read."""
    # Flags are made of the table of formats, without the seconds that Beam's import takes.
    from transforms.reading.input_files import open_input
    from transforms.storage.errors import READ_ERRORS, describe

    try:
        # Reading a pipe would wait for ever.
        if "://" not in path and os.path.exists(path) and not os.path.isfile(path):
            return dict.fromkeys(places, RecordError("unreadable_image", f"{path} is not a regular file"))
        with open_input(path) as file:
            return {place: _read_place(file, place) for place in sorted(places, key=lambda place: place.start or 0)}
    except (*READ_ERRORS, ValueError) as error:
        message = f"the record's path {path} cannot be read: {describe(error)}"
        return dict.fromkeys(places, RecordError("unreadable_image", message))


def _read_place(file: BinaryIO, place: Place) -> bytes | RecordError:
    if place.start is None:
        return file.read()
    try:
        if place.packed is not None:
            return read_member(file, ZipMember(place.start, place.packed, place.size or 0, place.crc or 0))
        file.seek(place.start)
        return file.read(-1 if place.size is None else place.size)
    except RecordError as error:
        return RecordError(error.reason, f"{place.path}, offset {place.start}: {error}", error.data)


def _checked(place: Place | RecordError, files: Mapping[str, Mapping[Place, bytes | RecordError]]) -> bytes:
    if isinstance(place, RecordError):
        raise place
    found = files[place.path][_to_read(place)]
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
