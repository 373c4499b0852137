"""Run a format's functions in the children of a sandbox: the tasks these run, and what their worker makes of it.

The worker pickles for its children, never the other way round: from them it takes JSON and Arrow's own format.
"""

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pkgutil import resolve_name
from typing import Any, BinaryIO

import pyarrow as pa

from transforms.failure import Failure
from transforms.reading.format import Format
from transforms.schema import Chunk, EncodedChunk, Fields, Part
from transforms.worker.messages import Buffer
from transforms.worker.sandbox import Sandbox, SandboxError

Item = tuple[Any, Sequence[Buffer]]


def read_schema(format: Format, sandbox: Sandbox, file: BinaryIO, fields: Fields) -> pa.Schema | None:
    """`Format.schema` in a child. Raises SandboxError as well."""
    ((_, parts),) = _call(sandbox, "give_schema", format.schema, file, (fields,))
    return pa.ipc.read_schema(pa.py_buffer(parts[0])) if parts else None


def list_parts(
    format: Format, sandbox: Sandbox, file: BinaryIO, fields: Fields, chunk_pairs: int, chunk_bytes: int
) -> Iterator[Sequence[Part]]:
    """`Format.list` in a child. Raises SandboxError as well."""
    for parts, _ in _call(sandbox, "give_parts", format.list, file, (fields, chunk_pairs, chunk_bytes)):
        yield [Part(records, format.place(**place)) for records, place in parts]


def read_chunks(
    format: Format, sandbox: Sandbox, file: BinaryIO, series: Sequence[Chunk], fields: Fields, keep: Sequence[pa.Field]
) -> Iterator[EncodedChunk]:
    """`Format.read` in a child. Raises SandboxError as well."""
    items = _call(sandbox, "give_chunks", format.read, file, (tuple(series), fields, tuple(keep)))
    for chunk, (failures, (table,)) in zip(series, items, strict=True):
        pairs = pa.ipc.open_stream(pa.py_buffer(table)).read_all()
        # It comes from where untrusted bytes are parsed.
        pairs.validate(full=True)
        yield EncodedChunk(chunk, pairs, tuple(Failure(**failure) for failure in failures))


def give_schema(arguments: str, parts: Sequence[Buffer], file: BinaryIO) -> Iterator[Item]:
    """The task of `read_schema`."""
    found = resolve_name(arguments)(file, *pickle.loads(parts[0]))
    yield None, [] if found is None else [found.serialize()]


def give_parts(arguments: str, parts: Sequence[Buffer], file: BinaryIO) -> Iterator[Item]:
    """The task of `list_parts`."""
    for series in resolve_name(arguments)(file, *pickle.loads(parts[0])):
        yield [[part.records, asdict(part.place)] for part in series], []


def give_chunks(arguments: str, parts: Sequence[Buffer], file: BinaryIO) -> Iterator[Item]:
    """The task of `read_chunks`."""
    for encoded in resolve_name(arguments)(file, *pickle.loads(parts[0])):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, encoded.pairs.schema) as stream:
            stream.write_table(encoded.pairs)
        yield [asdict(failure) for failure in encoded.failures], [sink.getvalue()]


def _call(sandbox: Sandbox, task: str, function: Any, file: BinaryIO, arguments: tuple[Any, ...]) -> Iterator[Item]:
    """Run the task in a child; if that ends before it has given anything, once more in one that is new."""
    name = f"{function.__module__}:{function.__qualname__}"
    for fresh in (False, True):
        given = False
        try:
            for item in sandbox.call(f"{__name__}:{task}", name, [pickle.dumps(arguments)], file, fresh):
                given = True
                yield item
            return
        except SandboxError as error:
            if given or fresh or error.reason == "timed_out":
                raise
