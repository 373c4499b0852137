"""The page of a comparison."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from pipeline.audit.pages.gallery import Gallery, make_gallery
from pipeline.audit.pages.render import anchor, render
from pipeline.audit.pages.thumbnails import Thumbnail
from pipeline.audit.pages.views import LossView, loss_view
from pipeline.audit.runs.difference import ComparedRun, Difference, values_and_gains
from transforms.columns import Column

# The same for all pictures, so that you can compare them by eye.
_DIFFERENCE_GAIN = 4.0


@dataclass(frozen=True)
class ChangedPairView:
    """A pair that changed much.

    Attributes:
        anchor: element id to link to.
        id: the pair's id.
        source: the pair's source in the other run.
        values: per column: before, after, and how much better it got.
        groups: `better-<column>` and `worse-<column>` for the columns in which it changed most, columns by number.
        pictures: target, the two generated images and their differences from it; empty if one is missing.
        problem: why there are none.
    """

    anchor: str
    id: str
    source: str
    values: Mapping[str, tuple[float | None, ...]]
    groups: tuple[str, ...]
    pictures: tuple[Thumbnail, ...]
    problem: str


@dataclass(frozen=True)
class DifferenceView:
    """The difference of a run from the first one, as the page shows it.

    Attributes:
        letter: of the other run.
        found: the difference itself.
        losses: distributions; those of the first run are the baseline.
        pairs: the pairs that changed most.
        notices: what is missing.
    """

    letter: str
    found: Difference
    losses: tuple[LossView, ...]
    pairs: tuple[ChangedPairView, ...]
    notices: tuple[str, ...]


def build_page(runs: Sequence[ComparedRun], differences: Sequence[Difference]) -> str:
    """The page of a comparison."""
    letters = [chr(ord("A") + index) if index < 26 else str(index + 1) for index in range(len(runs))]
    views = [_view(found, letter) for found, letter in zip(differences, letters[1:], strict=True)]
    navigation = [("runs", "Runs"), *((f"run-{view.letter}", f"A → {view.letter}") for view in views)]
    return render("compare.html", runs=list(zip(letters, runs, strict=True)), differences=views, navigation=navigation)


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
    columns = [before[name].column for name in names]
    return DifferenceView(
        letter=letter,
        found=found,
        losses=tuple(loss_view(after[name], before[name]) for name in names),
        pairs=tuple(_changed_pairs(rows, columns, list(groups.values()), galleries, letter)),
        notices=tuple(dict.fromkeys(notice for gallery in galleries for notice in gallery.notices)),
    )


def _gallery(rows: pa.Table, run: ComparedRun) -> Gallery:
    ids = dict(zip(rows["source"].to_pylist(), rows["id"].to_pylist(), strict=True))
    return make_gallery(ids, run.record.identity, difference_gain=_DIFFERENCE_GAIN)


def _changed_pairs(
    rows: Sequence[pa.Table],
    columns: Sequence[Column],
    groups: Sequence[Sequence[str]],
    galleries: Sequence[Gallery],
    letter: str,
) -> Iterator[ChangedPairView]:
    """The views of pairs, given as rows of the first run's table and of the other's."""
    values: dict[str, list[tuple[float | None, ...]]] = {}
    for column in columns:
        numbers = np.stack(values_and_gains(rows[0], rows[1], column), axis=1).tolist()
        values[column.name] = [tuple(None if x != x else x for x in row) for row in numbers]
    for position, (old, new) in enumerate(zip(*(table["source"].to_pylist() for table in rows), strict=True)):
        yield ChangedPairView(
            anchor=anchor(f"{letter} {new}"),
            id=rows[1]["key"][position].as_py(),
            source=new,
            values={column: found[position] for column, found in values.items()},
            groups=tuple(groups[position]),
            pictures=_side_by_side(galleries[0].pictures.get(old, ()), galleries[1].pictures.get(new, ()), letter),
            problem=galleries[0].problems.get(old) or galleries[1].problems.get(new, ""),
        )


def _side_by_side(old: Sequence[Thumbnail], new: Sequence[Thumbnail], letter: str) -> tuple[Thumbnail, ...]:
    """The target, then each run's image and its difference; nothing if one run's pictures are missing."""
    if not (old and new):
        return ()
    # The crops of two runs show different parts.
    old, new = ([picture for picture in pictures if not picture.crop] for pictures in (old, new))
    targets = [picture for picture in new if picture.kind == "target"]
    return *targets, *_labelled(old, "A"), *_labelled(new, letter)


def _labelled(pictures: Sequence[Thumbnail], letter: str) -> list[Thumbnail]:
    own = [picture for picture in pictures if picture.kind != "target"]
    return [replace(picture, caption=f"{letter}: {picture.caption}") for picture in own]
