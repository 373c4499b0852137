"""The steps that find the chunks of a run and read their pairs."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import TaggedOutput

from transforms.images.decode import DecodePolicy
from transforms.reading.format import AUTO, FORMATS
from transforms.reading.input_files import InputFile, files_of
from transforms.reading.list_chunks import CHUNK_BYTES, CHUNK_PAIRS, list_chunks
from transforms.reading.read_chunks import read_series
from transforms.schema import Chunk, ChunkSeries, EncodedChunk, Fields, ScoredChunk
from transforms.steps.overlap import OverlappingDoFn
from transforms.steps.step import Step
from transforms.storage.json_files import to_json
from transforms.storage.run_files import RunFiles
from transforms.work import Work
from transforms.worker.counters import count
from transforms.worker.one_ahead import OneAhead
from transforms.worker.sandbox import Sandbox
from transforms.worker.stopwatch import timed
from transforms.writing.chunk_files import WrittenChunks, find_done
from transforms.writing.earlier_run import EarlierRun

# Tags of the outputs of SplitDone.
TO_DO, DONE = "to_do", "done"

# Taking over is waiting, for the disk or for a store.
_TAKEN_OVER_AT_ONCE = 16


@dataclass(eq=False)
class InputFiles(Step):
    """Pipeline -> InputFile, those that run.json names: a job that carried them would be too large for services.

    Attributes:
        output: the run's directory.
        fingerprint: of the run.
        claim: of its launcher.

    Raises:
        ForeignDirectoryError: on the worker, if the directory belongs to another run.
    """

    output: str
    fingerprint: str
    claim: str = ""

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[InputFile]:
        run = beam.Create([RunFiles(self.output)], reshuffle=False)
        read = beam.FlatMap(_input_files, self.fingerprint, self.claim).with_output_types(InputFile)
        return pipeline | "Run" >> run | "Read" >> read


def _input_files(files: RunFiles, fingerprint: str, claim: str) -> Iterator[InputFile]:
    return files_of(files.read_own_record(fingerprint, claim).identity)


@dataclass(eq=False)
class ListChunks(Step):
    """InputFile -> ChunkSeries, by `list_chunks`. The caller reshuffles them.

    Attributes:
        fields: the fields to read.
        chunk_pairs: most records of a chunk.
        input_format: a key of `FORMATS`, or `auto`.
        chunk_bytes: about the most bytes of a chunk.
        sandbox: parses the files.
        whole_files: whether a file is one series, because one worker reads them all; otherwise several share it.
    """

    fields: Fields
    chunk_pairs: int = CHUNK_PAIRS
    input_format: str = AUTO
    chunk_bytes: int = CHUNK_BYTES
    sandbox: Sandbox = Sandbox()
    whole_files: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.input_format not in (AUTO, *FORMATS):
            raise ValueError(f"input_format is {self.input_format!r}, not one of {', '.join((AUTO, *FORMATS))}")
        if self.chunk_pairs < 1 or self.chunk_bytes < 1:
            raise ValueError(f"chunk_pairs and chunk_bytes are {self.chunk_pairs} and {self.chunk_bytes}, not positive")

    def expand(self, files: beam.PCollection[InputFile]) -> beam.PCollection[ChunkSeries]:
        settings = (self.input_format, self.fields, self.chunk_pairs, self.chunk_bytes, self.sandbox)
        return files | "List" >> beam.FlatMap(_list, self.whole_files, *settings).with_output_types(ChunkSeries)


def _list(file: InputFile, whole_files: bool, *settings: Any) -> Iterator[ChunkSeries]:
    listed = list_chunks(file, *settings)
    if whole_files:
        listed = _as_one(listed)
    for series, watch in timed(listed, file.path, "listing"):
        count("chunks_listed", len(series))
        count("pairs_listed", _pairs(series))
        first, *others = series
        yield (replace(first, listing_seconds=watch.seconds["listing"]), *others)


def _as_one(listed: Iterator[ChunkSeries]) -> Iterator[ChunkSeries]:
    yield tuple(chain.from_iterable(listed))


@dataclass(eq=False)
class CountListed(Step):
    """ChunkSeries -> the number of all pairs, also written to `RunFiles.listed`, of which progress is a fraction.

    The launcher looks there if other processes do the work.

    Attributes:
        output: the run's directory.
        fingerprint: of the run.
        claim: of the launcher.
    """

    output: str
    fingerprint: str
    claim: str = ""

    def expand(self, series: beam.PCollection[ChunkSeries]) -> beam.PCollection[int]:
        return (
            series
            | "Pairs" >> beam.Map(_pairs)
            # Every file gives at least one chunk, so there is always a number to add.
            | "Add" >> beam.CombineGlobally(sum).without_defaults()
            | "Write" >> beam.Map(_write_listed, RunFiles(self.output), self.fingerprint, self.claim)
        )


def _pairs(series: ChunkSeries) -> int:
    return sum(chunk.pairs for chunk in series)


def _write_listed(pairs: int, files: RunFiles, fingerprint: str, claim: str) -> int:
    files.check_owner(fingerprint, claim)
    files.write_whole(files.listed, to_json({"pairs": pairs}))
    return pairs


@dataclass(eq=False)
class SplitDone(Step):
    """ChunkSeries -> the chunks to do, as ChunkSeries tagged `TO_DO`, and the ScoredChunk of each other, tagged `DONE`.

    Attributes:
        output: the run's directory.
        fingerprint: of the run.
        claim: of its launcher.
        earlier: a run whose chunks are taken over where their input has not changed.
        formats: of metrics and of optimized images, as for `write_chunk`.

    Raises:
        ForeignDirectoryError: on the worker, if the directory belongs to another run.
    """

    output: str
    fingerprint: str
    claim: str = ""
    earlier: EarlierRun | None = None
    formats: tuple[str, str] = ("parquet", "parquet")

    def expand(self, series: beam.PCollection[ChunkSeries]) -> Any:
        return series | "Split" >> beam.ParDo(_SplitDone(self)).with_outputs(DONE, main=TO_DO)


class _SplitDone(OverlappingDoFn[ChunkSeries, Iterator[Chunk | ScoredChunk]]):
    def __init__(self, step: SplitDone):
        self.most = _TAKEN_OVER_AT_ONCE if step.earlier else 0
        self.files, self.earlier = RunFiles(step.output), step.earlier
        self.owner = step.fingerprint, step.claim
        self.settings = self.files, step.formats, step.fingerprint

    def setup(self) -> None:
        self.files.check_owner(*self.owner)
        self.written = WrittenChunks(self.files)
        if self.earlier:
            self.earlier.load()
            self.pool = ThreadPoolExecutor(_TAKEN_OVER_AT_ONCE, "take_over")

    def start_bundle(self) -> None:
        # An engine tries a bundle again whose worker is lost, and what that has written need not be scored again.
        self.written.forget()
        super().start_bundle()

    def begin(self, series: ChunkSeries) -> Iterator[Chunk | ScoredChunk]:
        found = find_done(series, self.files, self.owner[0], self.written)
        return self.pool.map(partial(self._take_over, self.earlier), found) if self.earlier else found

    def teardown(self) -> None:
        super().teardown()
        if self.earlier:
            self.pool.shutdown(cancel_futures=True)

    def _take_over(self, earlier: EarlierRun, chunk: Chunk | ScoredChunk) -> Chunk | ScoredChunk:
        return chunk if isinstance(chunk, ScoredChunk) else earlier.take_over(chunk, *self.settings)

    def end(self, found: Iterator[Chunk | ScoredChunk]) -> Iterator[Any]:
        to_do = []
        for chunk in found:
            if isinstance(chunk, ScoredChunk):
                count("chunks_found_done")
                count("pairs_done", chunk.chunk.pairs)
                yield TaggedOutput(DONE, replace(chunk, work=_listing(chunk.chunk)))
            else:
                to_do.append(chunk)
        if to_do:
            yield tuple(to_do)


@dataclass(eq=False)
class ReadPairs(Step):
    """ChunkSeries -> EncodedChunk, by `read_series`.

    Attributes:
        fields: the fields to read.
        keep: the kept fields with the types of the result.
        sandbox: parses the files.
        max_image_bytes: larger images that records name are not read.
    """

    fields: Fields
    keep: tuple[pa.Field, ...] = ()
    sandbox: Sandbox = Sandbox()
    max_image_bytes: int = DecodePolicy.max_image_bytes

    def expand(self, series: beam.PCollection[ChunkSeries]) -> beam.PCollection[EncodedChunk]:
        return series | "Read" >> beam.ParDo(_Read(self)).with_output_types(EncodedChunk)


class _Read(OverlappingDoFn[ChunkSeries, tuple[ChunkSeries, OneAhead]]):
    """Reads the first chunk of a series while the last of the one before is scored, and so on chunk by chunk.

    Args:
        step: its settings.
    """

    def __init__(self, step: ReadPairs):
        self.settings = step.fields, step.keep, step.sandbox, step.max_image_bytes

    def begin(self, series: ChunkSeries) -> tuple[ChunkSeries, OneAhead]:
        return series, OneAhead(timed(read_series(series, *self.settings), series[0].path, "reading"))

    def abandon(self, started: tuple[ChunkSeries, OneAhead]) -> None:
        started[1].close()

    def end(self, started: tuple[ChunkSeries, OneAhead]) -> Iterator[EncodedChunk]:
        series, ahead = started
        for (encoded, reading), waiting in timed(ahead, series[0].path, "waiting_for_reading"):
            lost = sum(failure.scope == "file" for failure in encoded.failures)
            count("chunks_read")
            count("chunks_unreadable", lost)
            pairs = encoded.pairs.num_rows + len(encoded.failures) - lost
            count("pairs_read", pairs)
            count("bytes_read", encoded.pairs.nbytes)
            work = _listing(encoded.chunk) + reading.work(pairs, encoded.pairs.nbytes) + waiting.work()
            yield replace(encoded, work=work)


def _listing(chunk: Chunk) -> Work:
    """The work of finding a chunk, which every launch of a run does again."""
    return Work(seconds={"listing": chunk.listing_seconds})
