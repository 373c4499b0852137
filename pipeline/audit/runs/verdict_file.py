"""The verdict that a gate has left in a run's directory."""

from typing import Any

from apache_beam.io.filesystems import FileSystems

from pipeline.audit.judging.verdict import OUTCOMES
from pipeline.errors import UsageError
from transforms.storage.errors import READ_ERRORS
from transforms.storage.json_files import read_json
from transforms.storage.run_files import RunFiles


def read_verdict(run: str) -> dict[str, Any] | None:
    """The content of a run's verdict.json (`Verdict.to_json`); None: no gate has judged the run.

    Raises:
        UsageError: it cannot be read, or is no verdict.
    """
    path = RunFiles(run).verdict
    try:
        verdict = read_json(path) if FileSystems.exists(path) else None
    except (*READ_ERRORS, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    if verdict is not None and not (isinstance(verdict, dict) and verdict.get("verdict") in OUTCOMES):
        raise UsageError(f"{path} holds no verdict; pairloss audit gate writes one")
    return verdict
