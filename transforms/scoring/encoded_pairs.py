"""The encoded images of a chunk's rows, without a copy; equal targets and masks are one object."""

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256

import pyarrow as pa

from transforms.images.sandboxed import EncodedPair


def encoded_pairs(rows: pa.Table, masked: bool = False) -> list[EncodedPair]:
    """The bytes of the images; rows with the same target, or the same mask, share its view."""
    shared = [_shared(_views(rows[name])) for name in ("target", *(["mask"] if masked else []))]
    return list(zip(_views(rows["generated"]), *shared, strict=True))


def _shared(views: Sequence[memoryview | None]) -> list[memoryview | None]:
    """The views, but the first of equal bytes for all of these."""
    lengths = Counter(len(view) for view in views if view is not None)
    first: dict[bytes, memoryview] = {}
    return [
        view if view is None or lengths[len(view)] == 1 else first.setdefault(sha256(view).digest(), view)
        for view in views
    ]


def _views(column: pa.ChunkedArray) -> list[memoryview | None]:
    views: list[memoryview | None] = []
    for chunk in column.chunks:
        if not pa.types.is_dictionary(chunk.type):
            views += map(_view, chunk)
            continue
        indices = chunk.indices.to_pylist()
        distinct = {index: _view(chunk.dictionary[index]) for index in set(indices) - {None}}
        views += map(distinct.get, indices)
    return views


def _view(value: pa.Scalar) -> memoryview | None:
    return memoryview(value.as_buffer()) if value.is_valid else None
