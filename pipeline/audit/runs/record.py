"""The part of run.json that the audit reads."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pipeline.audit.runs.files import read_object
from pipeline.errors import UsageError
from transforms.storage.run_files import RunFiles


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The part of run.json that the audit reads.

    Attributes:
        identity: everything that decides the rows: version, settings, hashes of the weights, input files.
        fingerprint: hash of the identity.
        status: `running`, `finished` or `nothing_scored`.
        started: when the launcher started, in seconds since 1970.
        seconds: from the start of the launcher to the end of the run; None if it has not ended.
        precision: what the networks were computed in; None if the run has not ended.
    """

    identity: Mapping[str, Any]
    fingerprint: str = ""
    status: str = "running"
    started: float = 0.0
    seconds: float | None = None
    precision: list[str] | None = None


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "identity": dict,
    "fingerprint": str,
    "status": str,
    "started": (int, float),
    "seconds": (int, float),
    "precision": list,
}


def read_record(run: str) -> RunRecord:
    """The record in a run's run.json.

    Raises:
        UsageError: there is no run, or its run.json cannot be read.
    """
    data = read_object(RunFiles(run).config, f"{run} is not a run directory")
    known = {entry.name: data[entry.name] for entry in fields(RunRecord) if entry.name in data}
    if "identity" not in known:
        raise UsageError(f"{run} is not a run directory: its run.json has no identity")
    for name, value in known.items():
        if not isinstance(value, _TYPES[name]):
            raise UsageError(f"{run} is not a run directory: its run.json has {name}={value!r}")
    return RunRecord(**known)
