"""Claim a run's directory on the launcher: take a new one, resume an unfinished run, refuse anything else."""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from apache_beam.io.filesystems import FileSystems

from pipeline.errors import UsageError
from transforms.storage.errors import READ_ERRORS, describe
from transforms.storage.json_files import read_json
from transforms.storage.run_files import RunFiles, delete_directory, delete_file, list_files
from transforms.storage.run_record import DELETING, RunRecord
from transforms.writing.chunk_files import chunk_directories

# How often a directory is deleted while workers of another run still write into it.
_TRIES, _PAUSE_SECONDS = 10, 0.5


def fingerprint(identity: Mapping[str, Any]) -> str:
    """SHA-256 of everything that decides a run's rows: settings, weights, input files, version."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def claim(output: str, record: RunRecord, overwrite: bool, listing: bytes = b"") -> int:
    """Take the directory for this run, and write the record to its run.json.

    Args:
        output: the run's directory.
        record: the content of run.json; its fingerprint decides whether an unfinished run is resumed.
        overwrite: whether to delete an earlier run in that directory.
        listing: the content of the run's one input file, if that lies in the directory.

    Returns:
        the number of chunks that are done already.

    Raises:
        UsageError: the directory holds a finished run, another run or other files, or cannot be written to.
    """
    files = RunFiles(output)
    try:
        earlier = _earlier_record(files)
        if earlier is None:
            _refuse_foreign(files)
        elif overwrite or _is_half_deleted(earlier, record):
            delete_file(files.success)
            # Before the results, so that the workers of a run that is still at work notice, and end.
            files.write_record(replace(record, status=DELETING))
            _delete_results(files)
        else:
            _refuse_others(files, earlier, record)
        files.write_record(record)
        if listing:
            files.write_whole(record.identity["input"][0]["path"], listing)
        return sum(1 for _ in list_files(files.metrics_directory))
    except (*READ_ERRORS, ValueError) as error:
        raise UsageError(
            f"cannot use --output={output}: {describe(error)}; give a directory that can be written to"
        ) from error


def is_finished(output: str, record: RunRecord, claimed: bool = False) -> bool:
    """True if the directory holds a finished run with this record's fingerprint and, if `claimed`, its claim."""
    files = RunFiles(output)
    try:
        if not FileSystems.exists(files.success):
            return False
        earlier = _earlier_record(files)
    except (*READ_ERRORS, ValueError):
        # `claim` reports what is wrong with the directory.
        return False
    if earlier is None or (claimed and earlier.claim != record.claim):
        return False
    return earlier.fingerprint == record.fingerprint


def _earlier_record(files: RunFiles) -> RunRecord | None:
    """The record of the run in the directory; None if run.json is missing or another program's."""
    content = read_json(files.config) if FileSystems.exists(files.config) else None
    try:
        return RunRecord.from_json(content)
    except ValueError:
        return None


def _is_half_deleted(earlier: RunRecord, record: RunRecord) -> bool:
    """True if an earlier launch of this run was killed while it deleted the one before, whose files are still there."""
    return earlier.status == DELETING and earlier.fingerprint == record.fingerprint


def _refuse_foreign(files: RunFiles) -> None:
    # An interrupted claim, on a full disk for example, leaves a temporary file of ours.
    ours = f"{files.temporary}/"
    if any(not path.startswith(ours) for path in list_files(files.output, deep=True)):
        raise UsageError(f"--output={files.output} is not empty and holds no run: give an empty or a new directory")


def _refuse_others(files: RunFiles, earlier: RunRecord, record: RunRecord) -> None:
    remedy = "give another --output, or --overwrite to delete it"
    if FileSystems.exists(files.success):
        raise UsageError(f"--output={files.output} holds a finished run: {remedy}")
    if earlier.fingerprint != record.fingerprint:
        differing = ", ".join(name for name in record.identity if earlier.identity.get(name) != record.identity[name])
        raise UsageError(
            f"--output={files.output} holds an unfinished run with other {differing or 'content'}: {remedy}"
        )


def _delete_results(files: RunFiles) -> None:
    # _SUCCESS is gone and run.json is there: if this is interrupted, what is left is still an unfinished run.
    for path in (files.summary, files.verdict, files.report):
        delete_file(path)
    for directory in (*chunk_directories(files), files.listing_directory, files.temporary):
        for tries_left in reversed(range(_TRIES)):
            try:
                delete_directory(directory)
                break
            except OSError:
                # A worker that has not noticed yet may have written one more file.
                if not tries_left:
                    raise
                time.sleep(_PAUSE_SECONDS)
