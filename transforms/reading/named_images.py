"""The images that records name by paths: where they may lie, and their bytes, which the worker fetches itself."""

import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, BinaryIO

import pyarrow as pa

from transforms.failure import row_failure
from transforms.images.decode import DecodePolicy
from transforms.reading.image_paths import PLACES, Place, bytes_once, pairs_table
from transforms.reading.record_error import RecordError, too_many_bytes
from transforms.reading.web_images import Web, fetch_addresses, is_address
from transforms.reading.zip_members import ZipMember, read_members
from transforms.schema import Chunk, EncodedChunk, encoded_schema
from transforms.worker.sandbox import Sandbox

# Most of the time of reading from an object store is waiting.
_THREADS = 16
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def resolve(path: str, root: str, allow_http: bool = False) -> str:
    """The path of an image that a manifest names, below `root`, local or in a store, or an http(s) address.

    Links are followed.

    Raises:
        RecordError: the path leads out of `root`, is an address though none is allowed, or is none.
    """
    if not path or "\0" in path:
        raise RecordError("not_a_file", f"{path!r} is not a path")
    if not allow_http and (is_address(path) or is_address(root)):
        address = path if is_address(path) else f"{root}/{path}"
        raise RecordError("not_a_file", f"{address} is not fetched; give --allow_http, or name files")
    if is_address(path):
        return path
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


def fetch_images(
    encoded: EncodedChunk,
    root: str | None,
    keep: Sequence[pa.Field],
    sandbox: Sandbox = Sandbox(),
    max_image_bytes: int = DecodePolicy.max_image_bytes,
    allow_http: bool = False,
) -> EncodedChunk:
    """Read the images of a `named_chunk`, each once, however many pairs name it; another chunk is as it was.

    Sets `Chunk.names_files`.

    Args:
        encoded: the chunk.
        root: the directory that no path leads out of; None: the launcher named the files.
        keep: the kept fields.
        sandbox: unpacks members of zip files.
        max_image_bytes: larger images are not read.
        allow_http: whether to fetch images from http(s) addresses.
    """
    table = encoded.pairs
    named = [field.name for field in PLACES if field.name in table.schema.names]
    if not named:
        return encoded
    schema = encoded_schema(keep, masked=len(named) == len(PLACES))
    failed = list(encoded.failures)
    places = [[_resolved(at, encoded.chunk, root, allow_http) for at in table[name].to_pylist()] for name in named]
    wanted: dict[str, set[Place]] = defaultdict(set)
    for found in chain(*places):
        if isinstance(found, Place):
            wanted[found.path].add(_to_read(found))
    chunk = replace(encoded.chunk, names_files=any(path != encoded.chunk.path for path in wanted))
    addresses = [path for path in wanted if allow_http and is_address(path)]
    answers = fetch_addresses(addresses, Web(max_image_bytes, sandbox.clock_seconds))
    files = {address: dict.fromkeys(wanted.pop(address), answer) for address, answer in answers.items()}
    with ThreadPoolExecutor(_THREADS, "read_image") as pool:
        read = partial(_read, sandbox=sandbox, most_bytes=max_image_bytes)
        files |= zip(wanted, pool.map(read, wanted, wanted.values()), strict=True)
    images: list[list[bytes | None]] = [table.column(2 + side).to_pylist() for side in range(len(named))]
    good = []
    for row in range(table.num_rows):
        try:
            for side in range(len(named)):
                place = places[side][row]
                if place is not None:
                    images[side][row] = _checked(place, files)
            good.append(row)
        except RecordError as error:
            failed.append(row_failure(table, row, "read", error.reason, str(error)))
    columns = table.columns[: len(schema)]
    columns[2 : 2 + len(named)] = [bytes_once(side) for side in images]
    fetched = pairs_table(columns, schema, len(named))
    if "notes" in table.schema.names:
        fetched = fetched.append_column("notes", table["notes"])
    # Taking rows copies their images.
    whole = len(good) == len(fetched)
    return EncodedChunk(chunk, fetched if whole else fetched.take(pa.array(good, pa.int64())), tuple(failed))


def _resolved(
    at: Mapping[str, Any] | None, chunk: Chunk, root: str | None, allow_http: bool
) -> Place | RecordError | None:
    if at is None:
        return None
    place = Place(**{**at, "path": os.fsdecode(at["path"])})
    if not place.path and place.start is not None:
        return replace(place, path=chunk.path)
    try:
        return place if root is None else replace(place, path=resolve(place.path, root, allow_http))
    except RecordError as error:
        return error


def _to_read(place: Place) -> Place:
    """The place without the size that a whole file must have, which does not change what is read."""
    return replace(place, size=None) if place.start is None else place


def _read(path: str, places: Iterable[Place], sandbox: Sandbox, most_bytes: int) -> dict[Place, bytes | RecordError]:
    """These parts of a file, opened once, or why they cannot be read."""
    # Flags are made of the table of formats, without the seconds that Beam's import takes.
    from transforms.reading.input_files import open_input
    from transforms.storage.errors import READ_ERRORS, describe

    try:
        # Reading a pipe would wait for ever.
        if "://" not in path and os.path.exists(path) and not os.path.isfile(path):
            return dict.fromkeys(places, RecordError("unreadable_image", f"{path} is not a regular file"))
        with open_input(path) as file:
            return _read_places(file, sorted(places, key=lambda place: place.start or 0), sandbox, most_bytes)
    except (*READ_ERRORS, ValueError) as error:
        message = f"the record's path {path} cannot be read: {describe(error)}"
        return dict.fromkeys(places, RecordError("unreadable_image", message))


def _read_places(
    file: BinaryIO, places: Sequence[Place], sandbox: Sandbox, most_bytes: int
) -> dict[Place, bytes | RecordError]:
    members = {
        place: ZipMember(place.start, place.packed, place.size or 0, place.crc or 0)
        for place in places
        if place.start is not None and place.packed is not None
    }
    unpacked = read_members(file, list(members.values()), sandbox, most_bytes)
    found = dict(zip(members, unpacked, strict=True))
    found |= {place: _read_range(file, place, most_bytes) for place in places if place not in members}
    return {place: _located(one, place) if isinstance(one, RecordError) else one for place, one in found.items()}


def _read_range(file: BinaryIO, place: Place, most_bytes: int) -> bytes | RecordError:
    start = place.start or 0
    # The size of a sparse file says nothing about what fits in memory.
    size = file.seek(0, os.SEEK_END) - start if place.size is None else place.size
    if size > most_bytes:
        return too_many_bytes(size, most_bytes)
    file.seek(start)
    return file.read(size)


def _located(error: RecordError, place: Place) -> RecordError:
    where = place.path if place.start is None else f"{place.path}, offset {place.start}"
    return RecordError(error.reason, f"{where}: {error}")


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
