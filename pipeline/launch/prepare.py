"""What the launcher finds out before a run starts: input files, kept fields, weights, and the run's identity."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from pipeline.audit.judging.rules import read_rules
from pipeline.audit.runs.summaries import read_summary
from pipeline.config import Config
from pipeline.errors import UsageError
from pipeline.launch.credentials import check_credentials
from pipeline.launch.run_directory import fingerprint
from pipeline.weights import with_weights
from transforms.losses.networks.weights_file import WeightsError
from transforms.reading.input_files import InputFile, match_files
from transforms.reading.list_chunks import check_fields, detect_format
from transforms.storage.errors import READ_ERRORS

_LIBRARIES = ("apache-beam", "tensorflow", "numpy", "pillow", "pyarrow")


@dataclass(frozen=True)
class Prepared:
    """A run that may start.

    Attributes:
        config: the settings, with the weights in its plan.
        files: the input files.
        keep: names and types of the kept fields.
        record: the beginning of run.json.
    """

    config: Config
    files: tuple[InputFile, ...]
    keep: tuple[pa.Field, ...]
    record: dict[str, Any]


def prepare(config: Config) -> Prepared:
    """Read the rules of the gate, find the input files, check the fields of one of them, and get the weights.

    Raises:
        UsageError: a path at gs:// needs credentials that are not there, the rules or the baseline are wrong, there
            is no input, a field is missing, or the weights cannot be had.
    """
    paths = (*config.input, config.output, config.weights, config.keras_weights, config.gate, config.baseline)
    check_credentials(paths)
    if config.gate:
        # Now, so that a mistake in them does not cost a night.
        read_rules(config.gate)
        if config.baseline:
            read_summary(config.baseline)
    try:
        files = match_files(config.input)
        keep = _kept_fields(files, config)
        plan = with_weights(config.plan, config.weights, config.keras_weights)
    except (ValueError, OSError, WeightsError) as error:
        raise UsageError(str(error)) from error
    config = dataclasses.replace(config, plan=plan)
    identity = {**config.identity(), "input": [asdict(file) for file in files]}
    record = {
        "status": "running",
        "fingerprint": fingerprint(identity),
        "identity": identity,
        "versions": {name: version(name) for name in _LIBRARIES},
        "beam_flags": list(config.beam_flags),
        "started": time.time(),
    }
    return Prepared(config, tuple(files), keep, record)


def _kept_fields(files: Sequence[InputFile], config: Config) -> tuple[pa.Field, ...]:
    """The kept fields by the first file that can tell; a file that cannot is a failure of the run, later."""
    for file in files:
        try:
            format = detect_format(file.path, config.input_format)
        except (*READ_ERRORS, ValueError):
            continue
        if (keep := check_fields(file.path, format, config.fields)) is not None:
            return keep
    if config.fields.keep:
        raise ValueError("--keep_fields: no input file could be read, so the types of the fields are not known")
    return ()
