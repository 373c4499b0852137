"""Fetch pairs again by their source, `<path>#<record number>`. Only the chunks that hold them are read."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

from apache_beam.io.filesystems import FileSystems

from pipeline.errors import UsageError
from transforms.images.decode import DecodePolicy
from transforms.images.pairs import DecodedPair
from transforms.images.sandboxed import decode_pairs
from transforms.reading.format import AUTO, FORMATS, LISTING
from transforms.reading.input_files import InputFile, files_of
from transforms.reading.list_chunks import list_chunks
from transforms.reading.read_chunks import read_series
from transforms.reading.zip_members import split_archive
from transforms.schema import EncodedChunk, Fields
from transforms.storage.errors import READ_ERRORS, describe
from transforms.worker.sandbox import Sandbox

# Small, because usually only one pair of a chunk is wanted.
_CHUNK_PAIRS = 16


@dataclass(frozen=True)
class Inputs:
    """How a run read its pairs.

    Attributes:
        format: as in `Config.input_format`.
        fields: the record fields it read.
        policy: which images it admitted, and how it converted them.
        files: its input files by path, as they were.
        moved: where a file is now, by its path in the run.
    """

    format: str
    fields: Fields
    policy: DecodePolicy
    files: Mapping[str, InputFile]
    moved: Mapping[str, str]

    @classmethod
    def of_run(cls, identity: Mapping[str, Any], now: Sequence[InputFile] = ()) -> "Inputs":
        """From the `identity` of run.json; kept fields are not read again.

        Args:
            identity: of run.json.
            now: the files where they are now, if they have moved.

        Raises:
            UsageError: it is not that of a run, or of a later version.
        """
        try:
            named, format = identity["fields"]["generated"], identity["input_format"]
            # Runs of version 0.1.0 have one name.
            generated = (named,) if isinstance(named, str) else tuple(named)
            fields = Fields(**identity["fields"] | {"keep": (), "generated": generated})
            files = {file.path: file for file in files_of(identity)}
            policy = DecodePolicy(**identity["images"])
            if format not in (AUTO, *FORMATS):
                raise ValueError(f"input_format is {format!r}")
            _ = fields.shape
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"the run's run.json does not say how its pairs were read: {error}; score again with this version"
            ) from error
        candidates = {path: [file for file in now if _alike(path, file.path)] for path in files}
        moved = {
            path: max(found, key=lambda file: (_alike(path, file.path), file.size == files[path].size)).path
            for path, found in candidates.items()
            if found
        }
        return cls(format, fields, policy, files, moved)

    def state(self, path: str) -> Literal["same", "changed", "gone"]:
        """Compare a file with what the run read. If the file has moved, its time does not matter."""
        place, then = self.moved.get(path, path), self.files.get(path)
        if self.format == LISTING:
            # The listing knows how large an image was; reading it compares.
            archive, _ = split_archive(path)
            return "same" if FileSystems.exists(path) or (archive and FileSystems.exists(archive)) else "gone"
        try:
            # The path may contain a pattern's wildcards, so it is not matched as one.
            found = FileSystems.get_filesystem(place).metadata(place)
        except READ_ERRORS:
            return "gone"
        modified = found.last_updated_in_seconds if place == path or not then else then.modified
        return "same" if then and (then.size, then.modified) == (found.size_in_bytes, modified) else "changed"


def _alike(path: str, other: str) -> int:
    """The number of names that two paths have in common, counted from the end."""
    names = zip(reversed(path.split("/")), reversed(other.split("/")), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], names))


def fetch_pairs(ids: Mapping[str, str], inputs: Inputs) -> Iterator[tuple[str, DecodedPair | str]]:
    """Read and decode pairs again, file by file.

    Args:
        ids: the pairs' ids by their sources.
        inputs: how the run read them.

    Yields:
        every source once, with its pair or with one line that says why it cannot be fetched.
    """
    by_path: dict[str, dict[int, str]] = defaultdict(dict)
    for source in ids:
        path, _, number = source.rpartition("#")
        # The sources of a listing's pairs are their images; the numbers are its lines.
        by_path[next(iter(inputs.files)) if inputs.format == LISTING else path][int(number)] = source
    for path, sources in by_path.items():
        missing = {sources[number]: None for number in sorted(sources)}
        problem = "the file no longer has this record"
        for encoded in _read(inputs.moved.get(path, path), set(sources), inputs):
            if encoded.chunk.error or (encoded.failures and encoded.failures[0].scope == "file"):
                problem = encoded.chunk.error or encoded.failures[0].message
            for source, found in _found(encoded, sources, ids, inputs):
                missing.pop(source, None)
                yield source, found
        yield from ((source, problem) for source in missing)


def _read(path: str, numbers: set[int], inputs: Inputs) -> Iterator[EncodedChunk]:
    """The chunks of a file that hold the records, and those that say why the file cannot be read."""
    left = set(numbers)
    for series in list_chunks(InputFile(path, 0, 0), inputs.format, inputs.fields, _CHUNK_PAIRS):
        needed = tuple(chunk for chunk in series if chunk.error or left & set(range(chunk.start, chunk.stop)))
        yield from read_series(needed, inputs.fields, max_image_bytes=inputs.policy.max_image_bytes)
        left = {number for number in left if number >= series[-1].stop}
        if not left:
            return


def _found(
    encoded: EncodedChunk, sources: Mapping[int, str], ids: Mapping[str, str], inputs: Inputs
) -> Iterator[tuple[str, DecodedPair | str]]:
    """The wanted pairs of a chunk. Their sources name the file by its path in the run."""
    for row in encoded.pairs.to_pylist():
        if (source := sources.get(_number(row["source"]))) is None:
            continue
        if row["id"] != ids[source]:
            yield source, "another pair is there now"
            continue
        images = (row["generated"], row["target"], *([row["mask"]] if inputs.fields.mask else []))
        (pair,) = decode_pairs([images], inputs.policy, Sandbox())
        yield source, pair if isinstance(pair, DecodedPair) else describe(pair)
    for failure in encoded.failures:
        source = sources.get(_number(failure.source)) if failure.scope == "pair" else None
        if source is not None:
            yield source, f"{failure.reason}: {failure.message}"


def _number(source: str) -> int:
    return int(source.rpartition("#")[2])
