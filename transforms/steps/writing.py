"""The steps that write the files of chunks, summarize them and finish the run."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import apache_beam as beam

from transforms.columns import Column
from transforms.schema import ScoredChunk
from transforms.steps.step import Step
from transforms.storage.run_files import RunFiles
from transforms.storage.worker_files import worker_file
from transforms.summary.finish import finish_run
from transforms.summary.summary import Summary
from transforms.worker.counters import count
from transforms.worker.stopwatch import stopwatch
from transforms.writing.chunk_files import check_listing, write_chunk
from transforms.writing.earlier_run import EarlierRun


@dataclass(eq=False)
class WriteChunk(Step):
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
class FinishRun(Step):
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
