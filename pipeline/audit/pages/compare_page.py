"""The page of a comparison of runs, or of one run's candidates."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.audit.pages.candidates_view import CandidatesView
from pipeline.audit.pages.changed_pairs import DIFFERENCE_GAIN, ChangedPairView, Choice, changed_pair, choices
from pipeline.audit.pages.gallery import Gallery, make_gallery
from pipeline.audit.pages.render import render
from pipeline.audit.pages.views import LossView, loss_view
from pipeline.audit.runs.difference import ComparedRun, Difference


@dataclass(frozen=True)
class DifferenceView:
    """The difference of a run from the first one, as the page shows it.

    Attributes:
        letter: of the other run.
        found: the difference itself.
        losses: distributions; those of the first run are the baseline.
        pairs: the pairs that changed most.
        choices: the groups of pairs to choose from.
        notices: what is missing.
    """

    letter: str
    found: Difference
    losses: tuple[LossView, ...]
    pairs: tuple[ChangedPairView, ...]
    choices: tuple[Choice, ...]
    notices: tuple[str, ...]


def build_page(
    runs: Sequence[ComparedRun], differences: Sequence[Difference], candidates: CandidatesView | None = None
) -> str:
    """The page of a comparison.

    Args:
        runs: the first one, and those that are compared with it.
        differences: of the others from the first one; empty if there is one run.
        candidates: of the one run.
    """
    letters = [chr(ord("A") + index) if index < 26 else str(index + 1) for index in range(len(runs))]
    others = differences if len(runs) > 1 else ()
    views = [_view(found, letter) for found, letter in zip(others, letters[1:], strict=True)]
    navigation = [("runs", "Runs"), *((f"run-{view.letter}", f"A → {view.letter}") for view in views)]
    return render(
        "compare.html",
        runs=list(zip(letters, runs, strict=True)),
        differences=views,
        candidates=candidates,
        navigation=[*navigation, *([("candidates", "Candidates")] if candidates else [])],
    )


def _view(found: Difference, letter: str) -> DifferenceView:
    groups: dict[int, list[str]] = {}
    for index, column in enumerate(found.columns):
        for way, positions in (("worse", column.most_worse), ("better", column.most_better)):
            for position in positions:
                groups.setdefault(position, []).append(f"{way}-{index}")
    rows = [table.take(pa.array(list(groups), pa.int64())) for table in (found.common.before, found.common.after)]
    galleries = [_gallery(table, run) for table, run in zip(rows, (found.before, found.after), strict=True)]
    before, after = found.before.summary.summary.columns, found.after.summary.summary.columns
    names = [column.column for column in found.columns]
    return DifferenceView(
        letter=letter,
        found=found,
        losses=tuple(loss_view(after[name], before[name]) for name in names),
        pairs=tuple(changed_pair(found, *entry, galleries, ("A", letter)) for entry in groups.items()),
        choices=tuple(choices(names)),
        notices=tuple(dict.fromkeys(notice for gallery in galleries for notice in gallery.notices)),
    )


def _gallery(rows: pa.Table, run: ComparedRun) -> Gallery:
    ids = dict(zip(rows["source"].to_pylist(), rows["id"].to_pylist(), strict=True))
    return make_gallery(ids, run.record.identity, difference_gain=DIFFERENCE_GAIN)
