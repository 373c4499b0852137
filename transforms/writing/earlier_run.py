"""Take over chunks of an earlier run whose input has not changed, instead of scoring them again."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import pyarrow as pa
from apache_beam.io.filesystems import FileSystems

from transforms.reading.input_files import InputFile
from transforms.schema import Chunk, ScoredChunk
from transforms.storage.json_files import read_json
from transforms.storage.run_files import RunFiles
from transforms.storage.run_record import RunRecord
from transforms.writing.chunk_files import find_done, read_file, write_chunk


@dataclass(frozen=True)
class EarlierRun:
    """A run with the same settings, weights and program.

    Attributes:
        output: its directory.
        fingerprint: its own, which its chunks carry.
        keep: the kept fields of the new run; their types depend on all input files.
    """

    output: str
    fingerprint: str
    keep: tuple[pa.Field, ...] = ()

    @cached_property
    def _inputs(self) -> Mapping[str, InputFile]:
        """Its input files by their paths. Read by each worker, because there may be a million."""
        identity = RunRecord.from_json(read_json(RunFiles(self.output).config)).identity
        return {file["path"]: InputFile(**file) for file in identity["input"]}

    def take_over(
        self, chunk: Chunk, files: RunFiles, formats: tuple[str, str], fingerprint: str
    ) -> ScoredChunk | None:
        """Write the files of a chunk as the earlier run left them; None if it must be scored.

        Args:
            chunk: a chunk of this run.
            files: of this run.
            formats: of the metrics and of the optimized images, as for `write_chunk`.
            fingerprint: of this run.

        Raises:
            READ_ERRORS: (of `storage.errors`) the files cannot be written.
        """
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
        for image in found.optimized_files:
            source, copy = (FileSystems.join(output, image) for output in (self.output, files.output))
            files.write_whole(copy, read_file(source))
        return write_chunk(replace(found, reused=True), files, *formats, fingerprint)
