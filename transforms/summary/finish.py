"""End a run: check that nothing was lost, then write summary.json, run.json and, last of all, _SUCCESS.

This is a step of the graph and not of the launcher, so that a run is complete although its launcher went away.
"""

import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from transforms.storage.run_files import RunFiles, create_file
from transforms.summary.summary import Summary

# Of the layout of summary.json, which is read back as a baseline.
SUMMARY_VERSION = 2

# What of a run's identity decides its numbers: only summaries that agree in it can be compared or merged.
COMPARABLE = (
    *("losses", "objective", "pixel_gradient", "precision", "vgg", "vgg_layers", "lpips_weights", "keras_weights"),
    *("images", "descent"),
)

_NUMBERS = re.compile(r"\[\n[\s\d,-]+\]")


class LostPairsError(Exception):
    """Records were read that are neither scored nor failed: a defect of the program."""


@dataclass(eq=False)
class FinishRun(beam.PTransform):
    """Summary -> nothing; the run's last files are written.

    Attributes:
        output: the run's directory.
        record: what the launcher knows of the run, the beginning of run.json.
    """

    output: str
    record: Mapping[str, Any]

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, summary: beam.PCollection) -> beam.PCollection:
        return summary | "Finish" >> beam.ParDo(_Finish(RunFiles(self.output), self.record))


@dataclass(eq=False)
class _Finish(beam.DoFn):
    files: RunFiles
    record: Mapping[str, Any]

    def process(self, summary: Summary) -> Iterable[None]:
        self.files.check_owner(self.record["fingerprint"])
        finish_run(summary, self.files, self.record)
        return ()


def finish_run(summary: Summary, files: RunFiles, record: Mapping[str, Any]) -> None:
    """Write the run's last files. _SUCCESS is written only if a pair was scored.

    Raises:
        LostPairsError: scored + failed != read.
    """
    if summary.scored + summary.failed != summary.read:
        raise LostPairsError(f"of {summary.read} pairs read, {summary.scored} were scored and {summary.failed} failed")
    ended = {
        "status": "finished" if summary.scored else "nothing_scored",
        "seconds": round(time.time() - record["started"], 3),
        "counts": summary.counts(),
        "precision": sorted(summary.precisions),
    }
    files.write_whole(files.summary, summary_file(summary, record["identity"]))
    files.write_whole(files.config, to_json({**record, **ended}))
    files.delete_temporaries()
    if summary.scored:
        create_file(files.success, b"")


def summary_file(summary: Summary, identity: Mapping[str, Any]) -> bytes:
    """The content of summary.json: the summary, and of the run's identity what decides its numbers."""
    computed = {name: identity[name] for name in COMPARABLE if name in identity}
    # In whatever order they were asked for.
    computed["losses"] = sorted(computed["losses"])
    return to_json({"version": SUMMARY_VERSION, "computed": computed, **summary.to_json()})


def to_json(value: Mapping[str, Any]) -> bytes:
    """Indented JSON, a list of integers on one line; what JSON does not know (dates, for example) becomes its text."""
    text = json.dumps(value, indent=1, allow_nan=False, default=str) + "\n"
    # In JSON, no string holds a line break, so that what is matched is a list.
    return _NUMBERS.sub(lambda numbers: re.sub(r"\s+", "", numbers[0]), text).encode()
