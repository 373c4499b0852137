"""The run's directory on the launcher's side: claim a new one, resume an unfinished one, refuse anything else."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from apache_beam.io.filesystems import FileSystems

from pipeline.errors import UsageError
from transforms.storage.errors import READ_ERRORS, describe
from transforms.storage.json_files import read_json, to_json
from transforms.storage.run_files import RunFiles, delete_directory, delete_file, list_files
from transforms.writing.chunk_files import chunk_directories


def fingerprint(identity: Mapping[str, Any]) -> str:
    """SHA-256 of everything that decides a run's rows: settings, weights, input files, version."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def claim(output: str, record: Mapping[str, Any], overwrite: bool) -> int:
    """Make the directory this run's own, and leave the record in its run.json.

    Args:
        output: the run's directory.
        record: what run.json begins with; `identity` and `fingerprint` decide whether an unfinished run is resumed.
        overwrite: whether to delete an earlier run in that directory.

    Returns:
        number of chunks that are done already.

    Raises:
        UsageError: the directory holds a finished run, another run or other files, or cannot be written to.
    """
    files = RunFiles(output)
    try:
        earlier = _earlier_record(files)
        if earlier is None:
            _refuse_foreign(files)
        elif overwrite:
            _delete_results(files)
        else:
            _refuse_others(files, earlier, record)
        files.write_whole(files.config, to_json(record))
        return sum(1 for _ in list_files(files.metrics_directory))
    except (*READ_ERRORS, ValueError) as error:
        raise UsageError(
            f"cannot use --output={output}: {describe(error)}; give a directory that can be written to"
        ) from error


def is_finished(output: str, record: Mapping[str, Any]) -> bool:
    """Whether the directory holds the very run of this record, and it has come to its end."""
    files = RunFiles(output)
    try:
        if not FileSystems.exists(files.success):
            return False
        earlier = _earlier_record(files)
    except (*READ_ERRORS, ValueError):
        # `claim` says what is wrong with it.
        return False
    return earlier is not None and earlier["fingerprint"] == record["fingerprint"]


def _earlier_record(files: RunFiles) -> dict[str, Any] | None:
    """The record of the run in the directory; None: there is no run, or a run.json without a fingerprint, not ours."""
    record = read_json(files.config) if FileSystems.exists(files.config) else None
    return record if isinstance(record, dict) and "fingerprint" in record else None


def _refuse_foreign(files: RunFiles) -> None:
    # What a claim leaves that is cut short, by a full disk perhaps, is ours.
    ours = f"{files.temporary}/"
    if any(not path.startswith(ours) for path in list_files(files.output, deep=True)):
        raise UsageError(f"--output={files.output} is not empty and holds no run: give an empty or a new directory")


def _refuse_others(files: RunFiles, earlier: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    remedy = "give another --output, or --overwrite to delete it"
    if FileSystems.exists(files.success):
        raise UsageError(f"--output={files.output} holds a finished run: {remedy}")
    if earlier["fingerprint"] != record["fingerprint"]:
        differing = ", ".join(_differences(earlier.get("identity", {}), record["identity"]))
        raise UsageError(
            f"--output={files.output} holds an unfinished run with other {differing or 'content'}: {remedy}"
        )


def _differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [name for name in now if earlier.get(name) != now[name]]


def _delete_results(files: RunFiles) -> None:
    # The mark of success first, and not run.json, which will be replaced: cut short, the rest is still known as a run.
    for path in (files.success, files.summary, files.verdict, files.report):
        delete_file(path)
    for directory in (*chunk_directories(files), files.temporary):
        delete_directory(directory)
