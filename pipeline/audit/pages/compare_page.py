"""The page of a comparison."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from pipeline.audit.pages.gallery import Gallery, make_gallery
from pipeline.audit.pages.render import anchor, render
from pipeline.audit.pages.thumbnails import Thumbnail
from pipeline.audit.pages.views import LossView, loss_view
from pipeline.audit.runs.difference import Contrast, Side, pairs_compared
from pipeline.audit.runs.movement import Movement, gain
from transforms.columns import Column

# The same for all pictures, so that the eye may compare them.
_DIFFERENCE_GAIN = 4.0


@dataclass(frozen=True)
class MoverView:
    """A pair that moved far.

    Attributes:
        anchor: name to link to.
        id: the pair's.
        source: of the pair in the other run.
        values: per column: before, after, and how much better it got.
        groups: `better-<column>` and `worse-<column>` for the columns in which it moved furthest, columns by number.
        pictures: target, the two generated images and their differences from it, as far as they are to be had.
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
class ContrastView:
    """A contrast as the page shows it.

    Attributes:
        letter: of the other run.
        path: of the other run.
        facts: what was and what was not compared.
        movements: of every column.
        losses: distributions, those of the first run as baseline.
        movers: the pairs that moved furthest.
        notices: what is missing.
    """

    letter: str
    path: str
    facts: tuple[str, ...]
    movements: tuple[Movement, ...]
    losses: tuple[LossView, ...]
    movers: tuple[MoverView, ...]
    notices: tuple[str, ...]


def build_page(sides: Sequence[Side], contrasts: Sequence[Contrast]) -> str:
    """The page of a comparison."""
    letters = [chr(ord("A") + index) if index < 26 else str(index + 1) for index in range(len(sides))]
    views = [_view(contrast, letter) for contrast, letter in zip(contrasts, letters[1:], strict=True)]
    navigation = [("runs", "Runs"), *((f"run-{view.letter}", f"A → {view.letter}") for view in views)]
    return render("compare.html", sides=list(zip(letters, sides, strict=True)), contrasts=views, navigation=navigation)


def _view(contrast: Contrast, letter: str) -> ContrastView:
    groups: dict[int, list[str]] = {}
    for index, moved in enumerate(contrast.movements):
        for way, positions in (("worse", moved.most_worse), ("better", moved.most_better)):
            for position in positions:
                groups.setdefault(position, []).append(f"{way}-{index}")
    joined = contrast.joined
    rows = [table.take(pa.array(list(groups), pa.int64())) for table in (joined.before, joined.after)]
    galleries = [_gallery(table, side) for table, side in zip(rows, (contrast.before, contrast.after), strict=True)]
    before, after = contrast.before.summary.summary.columns, contrast.after.summary.summary.columns
    columns = [before[moved.column].column for moved in contrast.movements]
    return ContrastView(
        letter=letter,
        path=contrast.after.path,
        facts=tuple(pairs_compared(joined)),
        movements=contrast.movements,
        losses=tuple(loss_view(after[m.column], before[m.column]) for m in contrast.movements),
        movers=tuple(_movers(rows, columns, list(groups.values()), galleries, letter)),
        notices=tuple(dict.fromkeys(notice for gallery in galleries for notice in gallery.notices)),
    )


def _gallery(rows: pa.Table, side: Side) -> Gallery:
    ids = dict(zip(rows["source"].to_pylist(), rows["id"].to_pylist(), strict=True))
    return make_gallery(ids, side.record.identity, difference_gain=_DIFFERENCE_GAIN)


def _movers(
    rows: Sequence[pa.Table],
    columns: Sequence[Column],
    groups: Sequence[Sequence[str]],
    galleries: Sequence[Gallery],
    letter: str,
) -> Iterator[MoverView]:
    """Of pairs that are rows of the first run's table and of the other's."""
    values: dict[str, list[tuple[float | None, ...]]] = {}
    for column in columns:
        before, after = (table[column.name].to_numpy().astype(np.float64) for table in rows)
        gains = gain(before, after, column.higher_is_better)
        numbers = np.stack([before, after, gains], axis=1).tolist()
        values[column.name] = [tuple(None if x != x else x for x in row) for row in numbers]
    for position, (old, new) in enumerate(zip(*(table["source"].to_pylist() for table in rows), strict=True)):
        yield MoverView(
            anchor=anchor(f"{letter} {new}"),
            id=rows[1]["id"][position].as_py(),
            source=new,
            values={column: found[position] for column, found in values.items()},
            groups=tuple(groups[position]),
            pictures=_side_by_side(galleries[0].pictures.get(old, ()), galleries[1].pictures.get(new, ()), letter),
            problem=galleries[0].problems.get(old) or galleries[1].problems.get(new, ""),
        )


def _side_by_side(old: Sequence[Thumbnail], new: Sequence[Thumbnail], letter: str) -> tuple[Thumbnail, ...]:
    """Target, then what each run has made of it and how that differs; nothing if one run's pictures are missing."""
    if not (old and new):
        return ()
    target = next(picture for picture in new if picture.kind == "target")
    return target, *_labelled(old, "A"), *_labelled(new, letter)


def _labelled(pictures: Sequence[Thumbnail], letter: str) -> list[Thumbnail]:
    own = [picture for picture in pictures if picture.kind != "target"]
    return [replace(picture, caption=f"{letter}: {picture.caption}") for picture in own]
