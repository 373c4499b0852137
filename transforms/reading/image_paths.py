"""Images that records hold or name, and the chunk that a format makes of them; `named_images` reads the named ones."""

import math
import os
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa

from transforms.failure import Failure
from transforms.images.decode_error import DecodeError
from transforms.images.formats import sniff
from transforms.reading.record_error import RecordError
from transforms.schema import Chunk, EncodedChunk, Fields, encoded_schema

REASONS = {
    "unreadable_image": "the file that the record names does not exist or cannot be read",
    "outside_root": "the path leads out of the manifest's directory, or of `--image_root`; it was not followed",
    "not_a_file": "the record names an http(s) address, which is not fetched without `--allow_http`, or no path at all",
    "wrong_shape": "the numbers are not an array of the declared or of any shape",
    "not_base64": "the text begins with `data:`, but no base64 follows",
    "changed_image": "the file no longer has the size that it had when the run started",
}

_AT = pa.struct([("path", pa.binary()), *((name, pa.int64()) for name in ("start", "size", "packed", "crc"))])
_AT_NAMES = tuple(field.name for field in _AT)
PLACES = tuple(pa.field(name, _AT) for name in ("generated_at", "target_at", "mask_at"))
# How base64 begins that may be an image's; a path seldom does.
BASE64_START = r"^\s*(data:|[A-Za-z0-9+/_-]{64})"
_START_BYTES = 1000


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
        images: the generated image, its target and, with masks, its mask.
        kept: values of the kept fields.
    """

    id: str
    source: str
    images: tuple[Image, ...]
    kept: tuple[Any, ...] = ()


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
        raise RecordError("wrong_type", f"field {name!r} holds several values; one is needed")
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
            raise RecordError("wrong_shape", f"{len(value)} bytes are not a whole number of {fields.array_type}", value)
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
        if array.dtype.itemsize == 1 and not fields.array_shape and _is_known(array.tobytes()):
            # The bytes of an image's file, as programs without a type for bytes write them.
            return array.tobytes()
        if math.prod(fields.shape) != len(array):
            wanted = fields.array_shape or "no shape; declare --array_shape"
            raise RecordError("wrong_shape", f"{len(array)} numbers are not an array of {wanted}")
        array = array.reshape(fields.shape)
    file = BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def named_chunk(
    chunk: Chunk,
    pairs: Sequence[NamedPair],
    keep: Sequence[pa.Field],
    failures: Sequence[Failure] = (),
    masked: bool = False,
) -> EncodedChunk:
    """A chunk of these pairs; if images are places, more columns hold them until `fetch_images` reads them.

    A format that parses untrusted bytes opens no other file.
    """
    sides = [[pair.images[side] for pair in pairs] for side in range(3 if masked else 2)]
    kept = [pa.array([pair.kept[index] for pair in pairs], field.type) for index, field in enumerate(keep)]
    columns = [
        pa.array([pair.id for pair in pairs], pa.string()),
        pa.array([pair.source for pair in pairs], pa.string()),
        *(bytes_once([image if isinstance(image, bytes) else None for image in side]) for side in sides),
        *kept,
    ]
    schema = encoded_schema(keep, masked)
    if any(isinstance(image, Place) for side in sides for image in side):
        columns += [pa.array([_row_of(image) for image in side], _AT) for side in sides]
        schema = pa.schema([*schema, *PLACES[: len(sides)]])
    return EncodedChunk(chunk, pairs_table(columns, schema, len(sides)), tuple(failures))


def bytes_once(images: Sequence[bytes | None]) -> pa.Array:
    """The images as an array; as a dictionary where one object, such as the target of candidates, stands repeatedly."""
    distinct = {id(image): image for image in images if image is not None}
    if len(distinct) + images.count(None) == len(images):
        return pa.array(images, pa.binary())
    position = {key: index for index, key in enumerate(distinct)}
    indices = pa.array([None if image is None else position[id(image)] for image in images], pa.int32())
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(distinct.values()), pa.binary()))


def pairs_table(columns: Sequence[pa.Array], schema: pa.Schema, sides: int) -> pa.Table:
    """A table of the schema, but for images that are a dictionary."""
    for index in range(2, 2 + sides):
        schema = schema.set(index, schema.field(index).with_type(columns[index].type))
    return pa.table(list(columns), schema=schema)


def _row_of(image: Image) -> dict[str, Any] | None:
    if not isinstance(image, Place):
        return None
    # `dataclasses.asdict` takes as long as reading the image.
    return {**{name: getattr(image, name) for name in _AT_NAMES}, "path": os.fsencode(image.path)}
