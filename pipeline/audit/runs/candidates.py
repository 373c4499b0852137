"""The candidates of a run set against each other, target by target."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import pyarrow.compute as pc

from pipeline.audit.runs.difference import ComparedRun, Difference, difference
from transforms.row_keys import CANDIDATE

# Ten of them make 45 comparisons.
MOST_CANDIDATES = 10
# Targets named per comparison, column and direction, if there is one comparison; of several, each names fewer.
MOST_NAMED = 6
# The name of the rows whose candidate is null or empty.
UNNAMED = "(none)"


@dataclass(frozen=True)
class Candidates:
    """The comparisons of a run's candidates.

    Attributes:
        names: of all candidates, sorted.
        differences: of every two of the first `MOST_CANDIDATES` over the targets that both scored. Their pairs are
            named by id, the first candidate is `before` and the second `after`.
    """

    names: tuple[str, ...]
    differences: tuple[Difference, ...]

    @property
    def notice(self) -> str:
        """The candidates that are in no comparison, for people; empty if there are none."""
        if len(self.names) <= MOST_CANDIDATES:
            return ""
        return f"{len(self.names):,} candidates: only the first {MOST_CANDIDATES} by name are compared."


def has_candidates(identity: Mapping[str, Any]) -> bool:
    """Tell from the `identity` of run.json whether the rows of a run may have the column `candidate`."""
    fields = identity["fields"]
    # Runs of version 0.1.0 have one name, a text.
    several = not isinstance(fields["generated"], str) and len(fields["generated"]) > 1
    return several or CANDIDATE in fields.get("keep", ())


def compare_candidates(run: ComparedRun) -> Candidates:
    """Compare every two candidates of a run; there is nothing to compare if it has only one."""
    names = sorted(pc.unique(run.metrics[CANDIDATE]).to_pylist())
    compared = [_only(run, name) for name in names[:MOST_CANDIDATES]]
    pairs = list(combinations(compared, 2))
    most = max(1, MOST_NAMED // len(pairs)) if pairs else 0
    return Candidates(
        tuple(name or UNNAMED for name in names), tuple(difference(one, other, most) for one, other in pairs)
    )


def _only(run: ComparedRun, name: str) -> ComparedRun:
    """The run with the rows of one candidate alone, named by their ids."""
    rows = run.metrics.filter(pc.equal(run.metrics[CANDIDATE], name))
    return replace(run, metrics=rows.set_column(3, "key", rows["id"]), candidate=name or UNNAMED)
