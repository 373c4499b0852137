"""Read the JSON files of runs and write files, local or in a store; every failure is one `UsageError`."""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from apache_beam.io.filesystems import FileSystems

from pipeline.audit.runs.record_layout import check_record
from pipeline.errors import UsageError
from transforms.storage.errors import READ_ERRORS, describe
from transforms.storage.json_files import read_json
from transforms.storage.run_files import RunFiles, delete_directory
from transforms.storage.run_record import RunRecord

# Keys of the weights' hashes in earlier versions, and the networks they stand for.
_WEIGHTS_KEYS = {"lpips_weights": "vgg16_lpips", "keras_weights": "vgg16_keras"}
_NAME_A_RUN = "name the --output of a run"


def read_object(path: str, otherwise: str, remedy: str) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: of the file.
        otherwise: what it means if the file is missing, for the message.
        remedy: what to do if there is no such object, for the message.

    Raises:
        UsageError: it cannot be read, or it is not a JSON object.
    """
    try:
        if not FileSystems.exists(path):
            raise UsageError(f"{otherwise}: there is no {path}; {remedy}")
        data = read_json(path)
    except READ_ERRORS as error:
        # The rest of a local error is a number, and the path again.
        reason = (isinstance(error, OSError) and error.strerror) or describe(error)
        raise UsageError(f"cannot read {path}: {reason}; {remedy}") from error
    except ValueError as error:
        raise UsageError(f"cannot read {path}: {error}; {remedy}") from error
    if not isinstance(data, dict):
        raise UsageError(f"{path} does not hold a JSON object; {remedy}")
    return data


def read_record(run: str) -> RunRecord:
    """The record in a run's run.json.

    Raises:
        UsageError: there is no run, or its run.json cannot be read.
    """
    otherwise = f"{run} is not a run directory"
    data = read_object(RunFiles(run).config, otherwise, _NAME_A_RUN)
    try:
        record = RunRecord.from_json(data)
        check_record(data)
    except ValueError as error:
        raise UsageError(f"{otherwise}: {error}; {_NAME_A_RUN}") from error
    return replace(record, identity=name_networks(record.identity))


def write_file(path: str, content: bytes) -> None:
    """Write a file so that it is there whole or not at all.

    Raises:
        UsageError: it cannot be written.
    """
    if "://" not in path and os.path.isdir(path):
        raise UsageError(f"cannot write {path}: it is a directory; name a file")
    # The directory's own `_temporary` may belong to a run in progress.
    scratch = f"{path}.part"
    try:
        try:
            RunFiles(scratch).write_whole(path, content)
        finally:
            delete_directory(scratch)
    except (*READ_ERRORS, ValueError) as error:
        raise UsageError(f"cannot write {path}: {describe(error)}") from error


def name_networks(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of a run, or the part of it in a summary, as today's version writes it.

    Earlier ones cut no border and had two keys for weights; `--vgg=keras` gave `vgg_mse` and `style` another network.
    """
    kept = {name: value for name, value in identity.items() if name not in (*_WEIGHTS_KEYS, "vgg")}
    named = {"crop_border": 0} | kept
    if not identity.keys().isdisjoint(_WEIGHTS_KEYS):
        hashes = {network: identity.get(key) for key, network in _WEIGHTS_KEYS.items()}
        named["weights"] = {network: sha256 for network, sha256 in hashes.items() if sha256}
    if identity.get("vgg") == "keras":
        named["losses"] = [_on_keras(name) for name in identity.get("losses", ())]
        objective = identity.get("objective")
        named["objective"] = objective and _on_keras(objective)
    return named


def _on_keras(names: str) -> str:
    return re.sub(r"\b(vgg_mse|style)\b", r"\1_keras", names)
