"""verdict.json: what a gate writes into a run's directory, and what reports read."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from apache_beam.io.filesystems import FileSystems

from pipeline.audit.runs.files import read_object
from pipeline.audit.runs.json_layout import check, lists, objects
from pipeline.errors import UsageError
from transforms.storage.run_files import RunFiles

Outcome = Literal["fail", "warn", "skipped", "pass"]

# The most serious first.
OUTCOMES: tuple[Outcome, ...] = ("fail", "warn", "skipped", "pass")

_VALUE = {"type": ["number", "null"]}
_RESULT = objects(
    # They may have any type, because they are shown as they are.
    **dict.fromkeys(("rule", "line", "what", "column", "slice", "limit", "reason"), True),
    value=_VALUE,
    outcome={"enum": list(OUTCOMES)},
    pairs={"type": "integer"},
    examples=lists(objects(id=True, source=True, value=_VALUE)),
)
_VERDICT = objects(verdict={"enum": ["fail", "warn", "pass"]}, rules=True, baseline=True, results=lists(_RESULT))


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
    try:
        check(verdict, _VERDICT)
    except ValueError as error:
        raise UsageError(f"{path} is not a verdict: {error}; {remedy}") from error
    return verdict


def skip_reasons(results: Iterable[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """(reason, number of rules skipped for it), the most frequent reason first."""
    return Counter(result["reason"] for result in results if result["outcome"] == "skipped").most_common()
