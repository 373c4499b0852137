"""Summary files: read one, check that two can be compared, merge many, write one."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from apache_beam.io.filesystems import FileSystems

from pipeline.audit.runs.files import name_networks, read_object, read_record, write_file
from pipeline.audit.runs.summary_layout import check_layout, check_numbers
from pipeline.errors import UsageError
from transforms.columns import RENAMED
from transforms.losses.catalog import LOSSES
from transforms.losses.objective import parse_objective
from transforms.losses.plan import Plan
from transforms.storage.run_files import RunFiles
from transforms.summary.summary import Summary
from transforms.summary.summary_file import SUMMARY_VERSION, summary_file


@dataclass(frozen=True)
class RunSummary:
    """The summary of a run, or of several that were merged.

    Attributes:
        path: a run directory or a summary file, as the user gave it.
        computed: the settings that decide the numbers (`transforms.summary.summary_file.COMPARABLE`).
        summary: the numbers.
    """

    path: str
    computed: Mapping[str, Any]
    summary: Summary


def read_run(run: str) -> RunSummary:
    """The summary of a run that has ended, perhaps without a single scored pair.

    Args:
        run: its directory, local or in a store.

    Raises:
        UsageError: the run does not exist, has not ended, or has no readable summary.
    """
    record = read_record(run)
    files = RunFiles(run)
    if not FileSystems.exists(files.success) and record.status != "nothing_scored":
        raise UsageError(f"{run} has not ended: it has no _SUCCESS. The command that started it resumes it")
    return _read(run, files.summary)


def read_summary(path: str) -> RunSummary:
    """The summary of a run directory (see `read_run`), or of a summary file, whose name ends in .json.

    Raises:
        UsageError: it does not exist or cannot be read.
    """
    return _read(path, path) if path.endswith(".json") else read_run(path)


def check_comparable(one: RunSummary, other: RunSummary) -> None:
    """Check that two summaries have the same losses, weights and decoding, so that their numbers can be compared.

    Raises:
        UsageError: they have not; the message says what differs.
    """
    for name in sorted({*one.computed, *other.computed}):
        ours, theirs = (_deciding(name, run.computed.get(name)) for run in (one, other))
        # Summaries lack settings that are newer than they are, and off by default. Backends agree to about 1e-6.
        if (ours or None) != (theirs or None) and not (name == "backend" and None in (ours, theirs)):
            raise UsageError(
                f"{one.path} and {other.path} cannot be compared: their {name} differ, {ours} and {theirs}"
            )


def _deciding(name: str, value: Any) -> Any:
    """A setting without what decides no number: by its limits an image is scored or fails."""
    if name == "images" and isinstance(value, Mapping):
        return {key: kept for key, kept in value.items() if not key.startswith("max_image_")}
    return value


def merge_summaries(parts: Sequence[RunSummary], path: str) -> RunSummary:
    """The summary of all the pairs of the parts, at least one.

    Args:
        parts: shards or days, in any order.
        path: name of the whole.

    Raises:
        UsageError: they have different losses, weights, decoding or slices.
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
    """Write a summary file at its path, local or in a store.

    Raises:
        UsageError: it cannot be written.
    """
    write_file(summary.path, summary_file(summary.summary, summary.computed))


def _read(name: str, path: str) -> RunSummary:
    data = read_object(path, f"{name} has no summary", "name the --output of a run that has ended, or its summary.json")
    version = data.get("version")
    if version not in (1, SUMMARY_VERSION):
        raise UsageError(f"{path} has the layout {version}, not {SUMMARY_VERSION}: score again with this version")
    try:
        if version == 1 or "vgg" in data["computed"]:
            _add_columns(data)
        check_layout(data)
        summary = Summary.from_json(data)
        check_numbers(summary)
    except KeyError as error:
        raise UsageError(f"{path} is not a complete summary: {error} is missing in it") from error
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UsageError(f"{path} is not a complete summary: {error}") from error
    return RunSummary(name, name_networks(data["computed"]), summary)


def _add_columns(data: dict[str, Any]) -> None:
    """Say what the columns mean: version 1 does not, and with `--vgg` a column could differ from its loss in name."""
    plan = Plan(tuple(LOSSES), parse_objective("mae"), pixel_gradient=True)
    known = {column.name: column for column in (*plan.columns, *plan.optimization_columns)}
    # Without optimization, a kept field may have the old name.
    renamed = {old: new for old, new in RENAMED.items() if old in data["losses"]}
    data["columns"] = [asdict(known[renamed.get(name, name)]) for name in data["losses"]]
    slices = data["slices"]
    for pairs in (data, *((*slices["values"], slices["other"]) if slices else ())):
        pairs["losses"] = {renamed.get(name, name): entry for name, entry in pairs["losses"].items()}
        for name, entry in pairs["losses"].items():
            for end in ("worst", "best"):
                entry[end] = [{renamed.get(key, key): value for key, value in row.items()} for row in entry[end]]
            if name in renamed.values():
                # Version 1 took the largest values for the best.
                entry["worst"], entry["best"] = entry["best"], entry["worst"]
