"""Summaries and run directories made in code, for tests of the audit."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from support.scored import Values, chunk_of, summary_of, table

from pipeline.audit.runs.summaries import RunSummary
from transforms.failure import pair_failure
from transforms.storage.run_files import RunFiles
from transforms.storage.run_record import RunRecord
from transforms.summary.finish import finish_run
from transforms.summary.summary import Summary

IDENTITY = {
    "losses": ["mae"],
    "weights": {"vgg16_lpips": "abc"},
    "images": {"size_mismatch": "fail"},
    "input": ["a.parquet"],
}


def summarized(
    columns: Mapping[str, Values], failed: int = 0, kept: Sequence[str | None] | None = None, start: int = 0
) -> Summary:
    """The summary of these values, sliced by `kept` if it is given."""
    failures = [pair_failure(f"f{n}", f"in#f{n}", "decode", "corrupt", "") for n in range(failed)]
    array = None if kept is None else pa.array(kept, pa.string())
    chunk = chunk_of(table(dict(columns), start, kept=array), failures)
    return summary_of(chunk, columns=tuple(columns), slice_by="" if kept is None else "kept")


def run_of(summary: Summary, path: str = "run", **identity: object) -> RunSummary:
    """The summary as the audit reads it from a run directory."""
    return RunSummary(path, {**IDENTITY, **identity}, summary)


def write_run(directory: Path, summary: Summary, **identity: object) -> Path:
    """Write a run directory as the pipeline leaves it, but without its metrics."""
    record = RunRecord(fingerprint="f", identity={**IDENTITY, **identity})
    summary = replace(summary, done=set(), with_failures=set())
    finish_run(summary, RunFiles(str(directory)), record)
    return directory
