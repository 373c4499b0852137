"""Every Beam step of the pipeline. Each wraps plain functions of the other folders, which know no Beam, and counts.

From ReadPairs to WriteChunk the steps are one-to-one on chunks, so that the engine fuses them and encodes no table in
between.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import TaggedOutput

from transforms.columns import Column
from transforms.descent.settings import Descent
from transforms.images.decode import DecodePolicy
from transforms.images.sandboxed import DECODE_TASK
from transforms.losses.devices import next_device
from transforms.losses.plan import Plan
from transforms.overlap import OverlappingDoFn
from transforms.reading.format import AUTO, FORMATS
from transforms.reading.input_files import InputFile, files_of
from transforms.reading.list_chunks import CHUNK_BYTES, CHUNK_PAIRS, list_chunks
from transforms.reading.read_chunks import read_series
from transforms.schema import Chunk, ChunkSeries, EncodedChunk, Fields, ScoredChunk
from transforms.scoring.batch import Batching, batching_for
from transforms.scoring.model_cache import load_once
from transforms.scoring.optimize import load_optimizer, optimize_chunk
from transforms.scoring.score import StartedChunk, load_evaluator, score_chunk, start_chunk
from transforms.storage.json_files import to_json
from transforms.storage.run_files import RunFiles
from transforms.storage.worker_files import worker_file
from transforms.summary.finish import finish_run
from transforms.summary.summary import Summary
from transforms.work import Work
from transforms.worker.counters import count
from transforms.worker.one_ahead import OneAhead
from transforms.worker.sandbox import Sandbox
from transforms.worker.stopwatch import stopwatch, timed
from transforms.writing.chunk_files import WrittenChunks, check_listing, find_done, write_chunk
from transforms.writing.earlier_run import EarlierRun

# Tags of the outputs of SplitDone.
TO_DO, DONE = "to_do", "done"

# Taking over is waiting, for the disk or for a store.
_TAKEN_OVER_AT_ONCE = 16


@dataclass(eq=False)
class _Step(beam.PTransform):
    """A transform whose settings are the fields of a dataclass."""

    def __post_init__(self) -> None:
        super().__init__()


@dataclass(eq=False)
class InputFiles(_Step):
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
class ListChunks(_Step):
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
class CountListed(_Step):
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
class SplitDone(_Step):
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
class ReadPairs(_Step):
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


@dataclass(eq=False)
class ScorePairs(_Step):
    """EncodedChunk -> ScoredChunk, by `score_chunk`.

    Attributes:
        plan: what to compute.
        policy: which images to admit, and how to convert them.
        batching: size of the batches; None: what suits the worker's device.
        sandbox: decodes the images.
        needs_gpu: whether a worker without a GPU is a mistake.
        output: the run's directory, in which the worker tells what it does; empty: it does not.
        fingerprint: of the run.
        claim: of its launcher.
    """

    plan: Plan
    policy: DecodePolicy = DecodePolicy()
    batching: Batching | None = None
    sandbox: Sandbox = Sandbox()
    needs_gpu: bool = False
    output: str = ""
    fingerprint: str = ""
    claim: str = ""

    def expand(self, chunks: beam.PCollection) -> beam.PCollection:
        return chunks | "Score" >> beam.ParDo(_Work(self, load_evaluator, score_chunk))


@dataclass(eq=False, kw_only=True)
class OptimizePairs(ScorePairs):
    """EncodedChunk -> ScoredChunk with optimized images and the outcome for each pair, by `optimize_chunk`.

    The plan's objective is minimized; `batching` is also that of the descent's slots.

    Attributes:
        descent: how to descend, and when to stop.
    """

    descent: Descent

    def expand(self, chunks: beam.PCollection) -> beam.PCollection:
        work = partial(optimize_chunk, descent=self.descent)
        return chunks | "Optimize" >> beam.ParDo(_Work(self, load_optimizer, work))


class _Work(OverlappingDoFn[EncodedChunk, StartedChunk]):
    """Scores or optimizes with a model that the worker loads once; meanwhile children decode the next chunk.

    The first one is read, and its first pairs are decoded, while the model is loaded.

    Args:
        step: its settings.
        load: makes the model of a plan.
        work: scores or optimizes a chunk with the model.
    """

    def __init__(self, step: ScorePairs, load: Callable[..., Any], work: Callable[..., ScoredChunk]):
        self.plan, self.needs_gpu = step.plan, step.needs_gpu
        self.policy, self.batching, self.sandbox = step.policy, step.batching, step.sandbox
        self.run = (RunFiles(step.output), step.fingerprint, step.claim) if step.output else None
        self.load, self.work = load, work
        self.model: Future[Any] | None = None

    def setup(self) -> None:
        self.sandbox.start(DECODE_TASK)
        self.device = next_device(self.needs_gpu)
        loader = ThreadPoolExecutor(1, "load_model")
        self.model = loader.submit(load_once, self.load, self.plan, self.device)
        loader.shutdown(wait=False)

    def begin(self, chunk: EncodedChunk) -> StartedChunk:
        batching = self.batching or batching_for(self.device.memory_bytes)
        return start_chunk(chunk, self.plan, self.policy, batching, self.sandbox)

    def abandon(self, started: StartedChunk) -> None:
        started.decoded.close()

    def teardown(self) -> None:
        super().teardown()
        # The import of TensorFlow silences standard error, on which the launcher may want to say why the job ended.
        wait([self.model] if self.model else [])

    def end(self, started: StartedChunk) -> Iterator[ScoredChunk]:
        chunk = started.encoded
        with closing(started.decoded):
            assert self.model, "Beam has set the step up"
            model = self.model.result()
            with stopwatch(chunk.chunk.name, "other") as watch:

                def done(pairs: int) -> None:
                    count("pairs_done", pairs)
                    watch.pairs += pairs
                    if self.run:
                        worker_file(*self.run).tell()

                scored = self.work(started, model, done)
        yield replace(scored, work=chunk.work + watch.work())


@dataclass(eq=False)
class WriteChunk(_Step):
    """ScoredChunk -> the same without its images, once its files are written by `write_chunk`.

    Attributes:
        output: the run's directory.
        fingerprint: of the run.
        metrics_format: a format of `METRICS_FORMATS`; `parquet`: no text beside Parquet.
        optimized_format: a key of `OPTIMIZED_FORMATS`.
        claim: of the run's launcher.
        earlier: a run that has the other pairs of chunks of which only failures were tried again.
    """

    output: str
    fingerprint: str
    metrics_format: str = "parquet"
    optimized_format: str = "parquet"
    claim: str = ""
    earlier: EarlierRun | None = None

    def expand(self, chunks: beam.PCollection) -> beam.PCollection:
        formats = (self.metrics_format, self.optimized_format)
        settings = (RunFiles(self.output), self.fingerprint, self.claim, *formats, self.earlier)
        return chunks | "Write" >> beam.Map(_write, *settings)


def _write(
    chunk: ScoredChunk,
    files: RunFiles,
    fingerprint: str,
    claim: str,
    metrics_format: str,
    optimized_format: str,
    earlier: EarlierRun | None,
) -> ScoredChunk:
    # For every chunk, because another run may have taken the directory since the last one.
    with stopwatch(chunk.chunk.name, "writing") as watch:
        files.check_owner(fingerprint, claim)
        if earlier:
            chunk = earlier.complete(chunk)
        written = write_chunk(chunk, files, metrics_format, optimized_format, fingerprint)
    count("chunks_written")
    count("pairs_scored", len(chunk.metrics))
    count("pairs_failed", sum(failure.scope == "pair" for failure in chunk.failures))
    work = chunk.work + watch.work()
    worker_file(files, fingerprint, claim).add(work)
    return replace(written, work=work)


@dataclass(eq=False)
class SummarizeChunks(beam.CombineFn):
    """ScoredChunk... -> Summary.

    Attributes:
        columns: of the metrics, in order.
        slice_by: a kept field; empty: no slices.
    """

    columns: tuple[Column, ...]
    slice_by: str = ""

    def create_accumulator(self) -> Summary:
        return Summary.empty(self.columns, self.slice_by)

    def add_input(self, accumulator: Summary, chunk: ScoredChunk) -> Summary:
        accumulator.merge(Summary.of_chunk(chunk, self.columns, self.slice_by))
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Summary]) -> Summary:
        merged = self.create_accumulator()
        for accumulator in accumulators:
            merged.merge(accumulator)
        return merged

    def extract_output(self, accumulator: Summary) -> Summary:
        return accumulator


@dataclass(eq=False)
class FinishRun(_Step):
    """Summary -> None, once the run's last files are written by `finish_run`.

    Attributes:
        output: the run's directory, where the launcher has written the beginning of run.json.
        fingerprint: of the run.
        claim: of its launcher.
    """

    output: str
    fingerprint: str
    claim: str = ""

    def expand(self, summary: beam.PCollection) -> beam.PCollection:
        return summary | "Finish" >> beam.Map(_finish, RunFiles(self.output), self.fingerprint, self.claim)


def _finish(summary: Summary, files: RunFiles, fingerprint: str, claim: str) -> None:
    record = files.read_own_record(fingerprint, claim)
    check_listing(files, summary.done, summary.with_failures, summary.optimized_files)
    finish_run(summary, files, record)
