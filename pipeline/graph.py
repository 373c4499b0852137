"""The graph: what becomes of the input files, step by step."""

from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa

from pipeline.config import Config
from transforms.reading.count_pairs import CountListed
from transforms.reading.list_chunks import InputFile, ListChunks
from transforms.reading.read_chunks import ReadPairs
from transforms.scoring.optimize import OptimizePairs
from transforms.scoring.score import ScorePairs
from transforms.storage.run_files import RunFiles
from transforms.summary.finish import FinishRun
from transforms.summary.summary import SummarizeChunks
from transforms.writing.chunk_files import DONE, TO_DO, ReadDone, SplitDone, WriteChunk


def build(
    pipeline: beam.Pipeline,
    config: Config,
    files: Sequence[InputFile],
    keep: Sequence[pa.Field],
    record: Mapping[str, Any],
) -> None:
    """Add the steps to the pipeline.

    Args:
        pipeline: an empty one.
        config: the run's settings, with weights resolved.
        files: the input files.
        keep: names and types of the kept fields.
        record: what the launcher knows of the run, for run.json.
    """
    fingerprint = record["fingerprint"]
    listed = (
        pipeline
        | "Files" >> beam.Create(files, reshuffle=False)
        | "SpreadFiles" >> beam.Reshuffle()
        | "ListChunks" >> ListChunks(config.fields, config.chunk_pairs, config.input_format)
    )
    total = listed | "CountListed" >> CountListed(config.output)
    chunks = (
        listed
        # References only: the engine spreads them over its workers, and no image crosses a shuffle.
        | "SpreadChunks" >> beam.Reshuffle()
        | "SplitDone" >> beam.ParDo(SplitDone(RunFiles(config.output), fingerprint)).with_outputs(DONE, main=TO_DO)
    )
    scored = (
        chunks[TO_DO]
        | "ReadPairs" >> ReadPairs(config.fields, tuple(keep))
        | _work(config)
        | "WriteChunk" >> WriteChunk(config.output, fingerprint, config.metrics_format, config.optimized_format)
    )
    done_before = chunks[DONE] | "ReadDone" >> ReadDone(config.output)
    (
        (scored, done_before)
        | "AllChunks" >> beam.Flatten()
        | "Summarize" >> beam.CombineGlobally(SummarizeChunks(config.columns, config.slice_by))
        # What ends the run deletes what the total is written to.
        | "AfterCountListed" >> beam.WaitOn(total)
        | "Finish" >> FinishRun(config.output, record)
    )


def _work(config: Config) -> beam.PTransform:
    """What the run does with the pairs: score them, or also optimize the generated images."""
    hints = config.resource_hints
    if config.descent is None:
        return "ScorePairs" >> ScorePairs(config.plan, config.policy, config.batching).with_resource_hints(**hints)
    optimize = OptimizePairs(config.plan, config.descent, config.policy, config.batching)
    return "OptimizePairs" >> optimize.with_resource_hints(**hints)
