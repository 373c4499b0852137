"""The graph of a run: from input files to summary.json, step by step."""

from collections.abc import Sequence

import apache_beam as beam
import pyarrow as pa

from pipeline.config import Config
from transforms import steps
from transforms.storage.run_record import RunRecord
from transforms.writing.earlier_run import EarlierRun


def build(
    pipeline: beam.Pipeline,
    config: Config,
    keep: Sequence[pa.Field],
    record: RunRecord,
    earlier: EarlierRun | None = None,
    one_worker: bool = False,
) -> None:
    """Add the steps to the pipeline.

    Args:
        pipeline: an empty pipeline.
        config: the run's settings, with weights resolved.
        keep: names and types of the kept fields.
        record: the beginning of run.json, which names the input files; the launcher has written it.
        earlier: a run whose chunks are taken over where their input has not changed.
        one_worker: whether a single process does all the work.
    """
    fingerprint, claim = record.fingerprint, record.claim
    formats = config.metrics_format, config.optimized_format
    listed = (
        pipeline
        | "Files" >> steps.InputFiles(config.output, fingerprint, claim)
        | "SpreadFiles" >> beam.Reshuffle()
        | "ListChunks"
        >> steps.ListChunks(
            config.fields, config.chunk_pairs, config.input_format, sandbox=config.sandbox, whole_files=one_worker
        )
    )
    total = listed | "CountListed" >> steps.CountListed(config.output, fingerprint, record.claim)
    chunks = (
        listed
        # The engine spreads references over its workers; no image crosses a shuffle.
        | "SpreadChunks" >> beam.Reshuffle()
        | "SplitDone" >> steps.SplitDone(config.output, fingerprint, claim, earlier, formats)
    )
    scored = (
        chunks[steps.TO_DO]
        | "ReadPairs" >> steps.ReadPairs(config.fields, tuple(keep), config.sandbox, config.policy.max_image_bytes)
        | _work(config, fingerprint, claim)
        | "WriteChunk" >> steps.WriteChunk(config.output, fingerprint, *formats, claim, earlier)
    )
    (
        (scored, chunks[steps.DONE])
        | "AllChunks" >> beam.Flatten()
        | "Summarize" >> beam.CombineGlobally(steps.SummarizeChunks(config.columns, config.slice_by))
        # FinishRun deletes the directory that holds the total, so it must run last.
        | "AfterCountListed" >> beam.WaitOn(total)
        | "Finish" >> steps.FinishRun(config.output, fingerprint, claim)
    )


def _work(config: Config, fingerprint: str, claim: str) -> beam.PTransform:
    """The step that scores the pairs or, with `--optimize`, also optimizes the generated images."""
    hints = config.resource_hints
    run = config.output, fingerprint, claim
    settings = config.policy, config.batching, config.sandbox, bool(config.accelerator), *run
    if config.descent is None:
        return "ScorePairs" >> steps.ScorePairs(config.plan, *settings).with_resource_hints(**hints)
    optimize = steps.OptimizePairs(config.plan, *settings, descent=config.descent)
    return "OptimizePairs" >> optimize.with_resource_hints(**hints)
