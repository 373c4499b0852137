"""Summaries as files: read a run's or a merged one, check that two may be compared, merge many, write one."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from apache_beam.io.filesystems import FileSystems

from pipeline.errors import UsageError
from transforms.columns import RENAMED
from transforms.losses.catalog import LOSSES
from transforms.losses.objective import parse_objective
from transforms.losses.plan import Plan
from transforms.storage.errors import READ_ERRORS
from transforms.storage.json_files import read_json
from transforms.storage.run_files import RunFiles, delete_directory
from transforms.storage.run_record import RunRecord
from transforms.summary.summary import Summary
from transforms.summary.summary_file import SUMMARY_VERSION, summary_file


@dataclass(frozen=True)
class RunSummary:
    """The summary of a run, or of several that were merged.

    Attributes:
        path: as the user gave it: a run directory or a summary file.
        computed: what decided the numbers: losses, weights, decoding (`transforms.summary.summary_file.COMPARABLE`).
        summary: the numbers.
    """

    path: str
    computed: Mapping[str, Any]
    summary: Summary


def read_run(run: str) -> RunSummary:
    """The summary of a run that has ended, perhaps without a single scored pair.

    Args:
        run: its directory, local or `gs://`.

    Raises:
        UsageError: there is no run, it has not ended, or its summary cannot be read.
    """
    record = read_record(run)
    files = RunFiles(run)
    if not FileSystems.exists(files.success) and record.status != "nothing_scored":
        raise UsageError(f"{run} has not ended, it has no _SUCCESS; the command that began it resumes it")
    return _read(run, files.summary)


def read_record(run: str) -> RunRecord:
    """The content of a run's run.json.

    Raises:
        UsageError: there is no run, or its run.json cannot be read.
    """
    data = _read_object(RunFiles(run).config, f"{run} is not a run directory")
    try:
        return RunRecord.from_json(data)
    except ValueError as error:
        raise UsageError(f"{run} is not a run directory: {error}") from error


def read_summary(path: str) -> RunSummary:
    """The summary of a run directory (see `read_run`), or a summary file: one whose name ends in .json.

    Raises:
        UsageError: there is none, or it cannot be read.
    """
    return _read(path, path) if path.endswith(".json") else read_run(path)


def check_comparable(one: RunSummary, other: RunSummary) -> None:
    """Numbers of other losses, weights or decoding cannot be compared, nor do they add up.

    Raises:
        UsageError: they are not of the same; the message says what differs.
    """
    for name in sorted({*one.computed, *other.computed}):
        ours, theirs = one.computed.get(name), other.computed.get(name)
        if ours != theirs:
            raise UsageError(
                f"{one.path} and {other.path} cannot be compared: their {name} differ, {ours} and {theirs}"
            )


def merge_summaries(parts: Sequence[RunSummary], path: str) -> RunSummary:
    """The summary of all the pairs of the parts, at least one.

    Args:
        parts: shards or days, in any order.
        path: what to call the whole.

    Raises:
        UsageError: they are of other losses, weights or decoding, or sliced differently.
    """
    first = parts[0]
    columns = [distribution.column for distribution in first.summary.columns.values()]
    merged = Summary.empty(columns, first.summary.slices.by if first.summary.slices else "")
    for part in parts:
        check_comparable(first, part)
        try:
            merged.merge(part.summary)
        except ValueError as error:
            raise UsageError(f"cannot merge {first.path} and {part.path}: {error}") from error
    return RunSummary(path, first.computed, merged)


def write_summary(summary: RunSummary) -> None:
    """Write a summary file at its path, local or `gs://`.

    Raises:
        UsageError: it cannot be written.
    """
    write_file(summary.path, summary_file(summary.summary, summary.computed))


def write_file(path: str, content: bytes) -> None:
    """Write a file, local or `gs://`, so that it is there whole or not at all.

    Raises:
        UsageError: it cannot be written.
    """
    # Not the directory's own `_temporary`: that may be of a run in progress.
    scratch = f"{path}.part"
    try:
        RunFiles(scratch).write_whole(path, content)
        delete_directory(scratch)
    except (*READ_ERRORS, ValueError) as error:
        raise UsageError(f"cannot write {path}: {error}") from error


def _read(name: str, path: str) -> RunSummary:
    data = _read_object(path, f"{name} has no summary")
    version = data.get("version")
    if version not in (1, SUMMARY_VERSION):
        raise UsageError(f"{path} has the layout {version}, not {SUMMARY_VERSION}: score again with this version")
    try:
        if version == 1:
            _add_columns(data)
        return RunSummary(name, dict(data["computed"]), Summary.from_json(data))
    except KeyError as error:
        raise UsageError(f"{path} is no whole summary: {error} is missing in it") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path} is no whole summary: {error}") from error


def _add_columns(data: dict[str, Any]) -> None:
    """Turn a summary of version 1, which does not say what its columns mean, into one of version 2."""
    plans = [Plan(tuple(LOSSES), parse_objective("mae"), pixel_gradient=True, vgg=vgg) for vgg in ("lpips", "keras")]
    known = {column.name: column for plan in plans for column in (*plan.columns, *plan.optimization_columns)}
    # Only of optimized runs: in another one, a kept field may have the old name.
    renamed = {old: new for old, new in RENAMED.items() if old in data["losses"]}
    data["columns"] = [asdict(known[renamed.get(name, name)]) for name in data["losses"]]
    slices = data["slices"]
    for pairs in (data, *((*slices["values"], slices["other"]) if slices else ())):
        pairs["losses"] = {renamed.get(name, name): entry for name, entry in pairs["losses"].items()}
        for name, entry in pairs["losses"].items():
            for end in ("worst", "best"):
                entry[end] = [{renamed.get(key, key): value for key, value in row.items()} for row in entry[end]]
            if name == "objective_of_saved":
                # Version 1 took its largest values for the best.
                entry["worst"], entry["best"] = entry["best"], entry["worst"]


def _read_object(path: str, otherwise: str) -> dict[str, Any]:
    try:
        if not FileSystems.exists(path):
            raise UsageError(f"{otherwise}: there is no {path}")
        data = read_json(path)
    except (*READ_ERRORS, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    if not isinstance(data, dict):
        raise UsageError(f"{path} holds no JSON object")
    return data
