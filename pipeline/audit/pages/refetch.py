"""Fetch pairs again by their source, `<path>#<record number>`: of each file only the chunks they lie in are read."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from apache_beam.io.filesystems import FileSystems

from transforms.images.decode import DecodedPair, DecodeError, DecodePolicy, decode_pair
from transforms.reading.input_files import InputFile
from transforms.reading.list_chunks import list_chunks
from transforms.reading.read_chunks import read_series
from transforms.schema import EncodedChunk, Fields
from transforms.storage.errors import READ_ERRORS, describe

# Small chunks: of each, one pair is wanted and the others are read in vain.
_CHUNK_PAIRS = 16


@dataclass(frozen=True)
class Inputs:
    """How a run read its pairs.

    Attributes:
        format: as in `Config.input_format`.
        fields: which record fields it read.
        policy: which images it admitted, and how it converted them.
        files: its input files by path, as they were.
    """

    format: str
    fields: Fields
    policy: DecodePolicy
    files: Mapping[str, InputFile]

    @classmethod
    def of_run(cls, identity: Mapping[str, Any]) -> "Inputs":
        """From the `identity` of run.json; kept fields are not read again."""
        fields = Fields(**identity["fields"] | {"keep": ()})
        files = {file["path"]: InputFile(**file) for file in identity["input"]}
        return cls(identity["input_format"], fields, DecodePolicy(**identity["images"]), files)

    def changed(self, path: str) -> str:
        """How a file differs from what the run read, for people; empty: it does not."""
        try:
            # Not by matching it: a path may hold what is a wildcard in a pattern.
            found = FileSystems.get_filesystem(path).metadata(path)
        except READ_ERRORS:
            return "is no longer there"
        now = InputFile(path, found.size_in_bytes, found.last_updated_in_seconds)
        return "" if now == self.files.get(path) else "has changed since the run"


def fetch_pairs(ids: Mapping[str, str], inputs: Inputs) -> Iterator[tuple[str, DecodedPair | str]]:
    """Read and decode pairs again, file by file.

    Args:
        ids: the pairs' ids by their sources.
        inputs: how the run read them.

    Yields:
        every source once, with its pair, or with one line that says why it is not to be had.
    """
    by_path: dict[str, set[int]] = defaultdict(set)
    for source in ids:
        path, _, number = source.rpartition("#")
        by_path[path].add(int(number))
    for path, numbers in by_path.items():
        missing = {f"{path}#{number}" for number in sorted(numbers)}
        problem = "the file has no such record any more"
        for encoded in _read(path, numbers, inputs):
            if encoded.chunk.error or (encoded.failures and encoded.failures[0].scope == "file"):
                problem = encoded.chunk.error or encoded.failures[0].message
            for source, found in _found(encoded, ids, inputs.policy):
                missing.discard(source)
                yield source, found
        yield from ((source, problem) for source in sorted(missing))


def _read(path: str, numbers: set[int], inputs: Inputs) -> Iterator[EncodedChunk]:
    """The chunks of a file that the records lie in, and those that say why a file cannot be read."""
    left = set(numbers)
    for series in list_chunks(InputFile(path, 0, 0), inputs.format, inputs.fields, _CHUNK_PAIRS):
        needed = tuple(chunk for chunk in series if chunk.error or left & set(range(chunk.start, chunk.stop)))
        yield from read_series(needed, inputs.fields)
        left = {number for number in left if number >= series[-1].stop}
        if not left:
            return


def _found(
    encoded: EncodedChunk, ids: Mapping[str, str], policy: DecodePolicy
) -> Iterator[tuple[str, DecodedPair | str]]:
    for row in encoded.pairs.to_pylist():
        if (source := row["source"]) not in ids:
            continue
        if row["id"] != ids[source]:
            yield source, "another pair lies there now"
            continue
        try:
            yield source, decode_pair(row["generated"], row["target"], policy)
        except DecodeError as error:
            yield source, describe(error)
    yield from (
        (failure.source, f"{failure.reason}: {failure.message}")
        for failure in encoded.failures
        if failure.source in ids
    )
