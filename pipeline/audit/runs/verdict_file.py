"""verdict.json: what a gate writes into a run's directory, and what reports read."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from apache_beam.io.filesystems import FileSystems
from jsonschema import Draft202012Validator

from pipeline.audit.runs.files import read_object
from pipeline.errors import UsageError
from transforms.storage.run_files import RunFiles

Outcome = Literal["fail", "warn", "skipped", "pass"]

# The most serious first.
OUTCOMES: tuple[Outcome, ...] = ("fail", "warn", "skipped", "pass")

_EXAMPLE = {"required": ["id", "source", "value"], "properties": {"value": {"type": ["number", "null"]}}}
_RESULT = {
    "required": ["rule", "line", "what", "column", "slice", "value", "limit", "outcome", "reason", "pairs", "examples"],
    "properties": {
        "value": {"type": ["number", "null"]},
        "outcome": {"enum": list(OUTCOMES)},
        "pairs": {"type": "integer"},
        "examples": {"type": "array", "items": {"type": "object", **_EXAMPLE}},
    },
}
_VERDICT = {
    "required": ["verdict", "rules", "baseline", "results"],
    "properties": {
        "verdict": {"enum": ["fail", "warn", "pass"]},
        "results": {"type": "array", "items": {"type": "object", **_RESULT}},
    },
}


def read_verdict(run: str) -> dict[str, Any] | None:
    """The content of a run's verdict.json (`Verdict.to_json`); None if no gate has judged the run.

    Raises:
        UsageError: it cannot be read, or it is not a verdict.
    """
    path = RunFiles(run).verdict
    if not FileSystems.exists(path):
        return None
    remedy = "`pairloss audit gate` writes one"
    verdict = read_object(path, f"{run} has no verdict", remedy)
    if not Draft202012Validator(_VERDICT).is_valid(verdict):
        raise UsageError(f"{path} is not a verdict; {remedy}")
    return verdict


def skip_reasons(results: Iterable[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """(reason, number of rules skipped for it), the most frequent reason first."""
    return Counter(result["reason"] for result in results if result["outcome"] == "skipped").most_common()
