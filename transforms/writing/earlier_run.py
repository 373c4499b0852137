"""Take over from an earlier run what belongs to input that has not changed, instead of scoring it again."""

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.io.filesystems import FileSystems

from transforms.failure import Failure
from transforms.reading.folders import describe_listed
from transforms.reading.format import LISTING
from transforms.reading.input_files import InputFile, files_of, open_input
from transforms.schema import SEVERAL, Chunk, ScoredChunk
from transforms.storage.run_files import RunFiles
from transforms.storage.run_record import RunRecord
from transforms.storage.whole_files import read_file
from transforms.writing.chunk_files import DamagedChunkError, WrittenChunks, find_done, write_chunk
from transforms.writing.earlier_listing import EarlierListing, read_earlier_listing

# In place of reasons: every failure is tried again.
ALL = "all"


@dataclass(frozen=True)
class EarlierRun:
    """A run with the same settings, weights and program.

    Attributes:
        output: its directory.
        fingerprint: its own, which its chunks carry.
        keep: the kept fields of the new run; their types depend on all input files.
        retried: reasons of failures that are tried again; see `ALL`.
    """

    output: str
    fingerprint: str
    keep: tuple[pa.Field, ...] = ()
    retried: tuple[str, ...] = ()

    @cached_property
    def _record(self) -> RunRecord:
        return RunFiles(self.output).read_record()

    @cached_property
    def _inputs(self) -> Mapping[str, InputFile]:
        """Its input files by their paths. Read by each worker, because there may be a million."""
        return {file.path: file for file in files_of(self._record.identity)}

    def load(self) -> None:
        """Read what is needed to find its chunks, before several threads ask for it."""
        _ = self._inputs, self._written, self._listing

    @property
    def _listing(self) -> EarlierListing | None:
        return read_earlier_listing(self.output, next(iter(self._inputs), ""), self._record.claim)

    @cached_property
    def _written(self) -> WrittenChunks:
        return WrittenChunks(RunFiles(self.output))

    def take_over(
        self, chunk: Chunk, files: RunFiles, formats: tuple[str, str], fingerprint: str
    ) -> Chunk | ScoredChunk:
        """Write the files of a chunk as the earlier run left them; or return what is to be scored of it.

        Args:
            chunk: a chunk of this run.
            files: of this run.
            formats: of the metrics and of the optimized images, as for `write_chunk`.
            fingerprint: of this run.

        Raises:
            READ_ERRORS: (of `storage.errors`) the files cannot be written.
        """
        found, missing = self._find(chunk)
        if found is None:
            return chunk
        failed = [f for f in found.failures if ALL in self.retried or f.reason in self.retried]
        again = missing | {failure.source for failure in failed}
        # The failure of a file names none of its pairs; optimized images of a chunk lie in one file.
        if any(failure.scope == "file" for failure in failed) or (again and found.optimized_files):
            return chunk
        if again:
            return replace(chunk, retried=again)
        for image in found.optimized_files:
            source, copy = (FileSystems.join(output, image) for output in (self.output, files.output))
            files.write_whole(copy, read_file(source))
        return write_chunk(replace(found, reused=chunk.pairs), files, *formats, fingerprint)

    def complete(self, scored: ScoredChunk) -> ScoredChunk:
        """The result of a chunk of which only some pairs were scored, with the rest of the earlier run's.

        Raises:
            DamagedChunkError: the earlier run's result has vanished in the meantime.
        """
        retried = scored.chunk.retried
        if not retried or any(failure.scope == "file" for failure in scored.failures):
            return scored
        found, _ = self._find(scored.chunk)
        kept = [failure for failure in found.failures if failure.source not in retried] if found else []
        reused = len(kept) + (len(found.metrics) if found else 0)
        if found is None or reused + len(retried) != scored.chunk.pairs:
            raise DamagedChunkError(f"{self.output} has changed while its chunks were taken over")
        metrics = _in_order([found.metrics, scored.metrics])
        chunk = replace(scored.chunk, names_files=found.chunk.names_files or scored.chunk.names_files)
        failures = _as_scored([*kept, *scored.failures])
        return replace(scored, chunk=chunk, metrics=metrics, failures=failures, reused=reused)

    def _find(self, chunk: Chunk) -> tuple[ScoredChunk | None, Set[str]]:
        """The earlier result of the chunk, None if there is none, and the sources of the pairs that it lacks."""
        found, missing = self._find_listed(chunk) if chunk.format == LISTING else (self._find_same(chunk), frozenset())
        if found and any(found.metrics.schema.field(field.name).type != field.type for field in self.keep):
            return None, frozenset()
        return found, missing

    def _find_same(self, chunk: Chunk) -> ScoredChunk | None:
        """The earlier run's result of the chunk, if it is whole and its input has not changed.

        Nothing tells if images have changed that its records name: only who asks for failures alone takes their rows.
        """
        earlier = self._inputs.get(chunk.path)
        if chunk.error or not chunk.version or earlier is None:
            return None
        if (earlier.version, earlier.label) != (chunk.version, chunk.label):
            return None
        found = self._done(chunk)
        return None if found and found.chunk.names_files and not self.retried else found

    def _find_listed(self, chunk: Chunk) -> tuple[ScoredChunk | None, Set[str]]:
        """The earlier run's result of those pairs of a listing whose files are the same, and the sources of the others.

        A pair counts, and not the chunk: pairs come and go, and files change here and there.
        """
        listing = self._listing
        if listing is None or chunk.error:
            return None, frozenset()
        with open_input(chunk.path, chunk.version) as file:
            sources, lines = zip(*describe_listed(file, chunk), strict=True)
        numbers = listing.find(lines)
        wanted = {number: source for number, source in zip(numbers.tolist(), sources, strict=True) if number >= 0}
        done = filter(None, map(self._done, listing.chunks_of(numbers)))
        parts = [part for part in done if all(failure.scope == "pair" for failure in part.failures)]
        tables = [_renamed(part.metrics, wanted) for part in parts]
        named = [replace(f, source=wanted.get(_number(f.source), "")) for f in chain(*(p.failures for p in parts))]
        # A file that could not be read then may be the same and readable now.
        failures = _as_scored([failure for failure in named if failure.source and failure.stage != "read"])
        metrics = _in_order(tables) if tables else None
        if metrics is None or not len(metrics) + len(failures):
            return None, frozenset()
        held = {*metrics["source"].to_pylist(), *(failure.source for failure in failures)}
        return ScoredChunk(replace(chunk, names_files=True), metrics, failures), frozenset(sources) - held

    def _done(self, chunk: Chunk) -> ScoredChunk | None:
        """The result of a chunk of the earlier run, if it is whole."""
        (found,) = find_done([chunk], RunFiles(self.output), self.fingerprint, self._written)
        # A chunk that is not there or is damaged comes back as it is.
        return found if isinstance(found, ScoredChunk) else None


def _renamed(metrics: pa.Table, sources: Mapping[int, str]) -> pa.Table:
    """The rows of these pairs of the earlier listing, with their sources in the new one."""
    new = [sources.get(_number(source)) for source in metrics["source"].to_pylist()]
    index = metrics.schema.get_field_index("source")
    named = metrics.set_column(index, metrics.schema.field(index), pa.array(new, pa.string()))
    return named.filter(pc.is_valid(named["source"]))


def _in_order(tables: Sequence[pa.Table]) -> pa.Table:
    """The rows of tables of metrics in the order of their pairs, with all that the tables' metadata say."""
    values: dict[bytes, set[bytes]] = defaultdict(set)
    for table in tables:
        for key, value in (table.schema.metadata or {}).items():
            values[key].update(value.split(SEVERAL))
    metadata = {key: SEVERAL.join(sorted(found)) for key, found in values.items()}
    rows = pa.concat_tables([table.replace_schema_metadata(metadata) for table in tables])
    order = np.argsort([_number(source) for source in rows["source"].to_pylist()], kind="stable")
    return rows.take(order.astype(np.int64))


def _as_scored(failures: Sequence[Failure]) -> tuple[Failure, ...]:
    """Failures in the order of a run from nothing: those of the listing, of reading, of decoding and scoring."""
    stages = {"pair": 0, "read": 1}
    return tuple(sorted(failures, key=lambda failure: (stages.get(failure.stage, 2), _number(failure.source))))


def _number(source: str) -> int:
    """The number of a pair in its file."""
    return int(source.rpartition("#")[2])
