"""Take over from an earlier run what belongs to input that has not changed, instead of scoring it again."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.io.filesystems import FileSystems

from transforms.reading.input_files import InputFile, files_of
from transforms.schema import Chunk, EncodedChunk, ScoredChunk
from transforms.storage.run_files import RunFiles
from transforms.storage.whole_files import read_file
from transforms.writing.chunk_files import DamagedChunkError, find_done, write_chunk

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
    def _inputs(self) -> Mapping[str, InputFile]:
        """Its input files by their paths. Read by each worker, because there may be a million."""
        return {file.path: file for file in files_of(RunFiles(self.output).read_record().identity)}

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
        found = self._find(chunk)
        if found is None:
            return chunk
        again = {f.source for f in found.failures if ALL in self.retried or f.reason in self.retried}
        if again:
            # Optimized images of a chunk lie in one file, which is written as a whole.
            return chunk if found.optimized_files else replace(chunk, retried=frozenset(again))
        for image in found.optimized_files:
            source, copy = (FileSystems.join(output, image) for output in (self.output, files.output))
            files.write_whole(copy, read_file(source))
        return write_chunk(replace(found, reused=chunk.pairs), files, *formats, fingerprint)

    def complete(self, scored: ScoredChunk) -> ScoredChunk:
        """The result of a chunk of which only failures were tried again, with the rest of the earlier run's.

        Raises:
            DamagedChunkError: the earlier run's result has vanished in the meantime.
        """
        retried = scored.chunk.retried
        if not retried or any(failure.scope == "file" for failure in scored.failures):
            return scored
        found = self._find(scored.chunk)
        if found is None:
            raise DamagedChunkError(f"{self.output} has changed while its chunks were taken over")
        metrics = pa.concat_tables(
            [found.metrics, scored.metrics.replace_schema_metadata(found.metrics.schema.metadata)]
        )
        order = np.argsort([_number(source) for source in metrics["source"].to_pylist()], kind="stable")
        kept = [failure for failure in found.failures if failure.source not in retried]
        # As scoring leaves them: those found while reading, then those found while decoding and scoring.
        failures = sorted((*kept, *scored.failures), key=lambda f: (f.stage in ("decode", "score"), _number(f.source)))
        reused = len(found.metrics) + len(kept)
        return replace(scored, metrics=metrics.take(order), failures=tuple(failures), reused=reused)

    def _find(self, chunk: Chunk) -> ScoredChunk | None:
        """The earlier run's result of the chunk, if it is whole and its input has not changed."""
        earlier = self._inputs.get(chunk.path)
        if chunk.error or not chunk.version or earlier is None:
            return None
        if (earlier.version, earlier.label) != (chunk.version, chunk.label):
            return None
        (found,) = find_done([chunk], RunFiles(self.output), self.fingerprint)
        # A chunk that is not there or is damaged comes back as it is.
        if not isinstance(found, ScoredChunk):
            return None
        if any(found.metrics.schema.field(field.name).type != field.type for field in self.keep):
            return None
        return found


def only_retried(encoded: EncodedChunk) -> EncodedChunk:
    """The records of a chunk that are tried again; all, if it is not a chunk of which only some are."""
    retried = encoded.chunk.retried
    if not retried:
        return encoded
    wanted = pc.is_in(encoded.pairs["source"], pa.array(sorted(retried)))
    failures = tuple(f for f in encoded.failures if f.scope == "file" or f.source in retried)
    return replace(encoded, pairs=encoded.pairs.filter(wanted), failures=failures)


def _number(source: str) -> int:
    """The number of a pair in its file."""
    return int(source.rpartition("#")[2])
