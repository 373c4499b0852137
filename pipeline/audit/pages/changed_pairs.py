"""The pairs of a difference that changed most, as pages show them: numbers, and the pictures of both sides."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.audit.pages.gallery import Gallery
from pipeline.audit.pages.render import anchor
from pipeline.audit.pages.thumbnails import Thumbnail
from pipeline.audit.runs.difference import Difference, values_and_gains

# The same for all pictures, so that you can compare them by eye.
DIFFERENCE_GAIN = 4.0


@dataclass(frozen=True)
class ChangedPairView:
    """A pair that changed much.

    Attributes:
        anchor: element id to link to.
        id: the pair's id.
        between: the names of the two candidates; empty for two runs.
        source: the pair's source in the other run.
        values: per column: before, after, and how much better it got.
        groups: the groups of `choices` that it belongs to.
        pictures: target, the two generated images and their differences from it; empty if one is missing.
        problem: why there are none.
    """

    anchor: str
    id: str
    between: str
    source: str
    values: Mapping[str, tuple[float | None, ...]]
    groups: tuple[str, ...]
    pictures: tuple[Thumbnail, ...]
    problem: str


@dataclass(frozen=True)
class Choice:
    """A group of pairs to choose from: those that changed most in one column and direction.

    Attributes:
        group: name of the group.
        column: of the metrics.
        order: in which those that changed most come first.
        text: for people.
    """

    group: str
    column: str
    order: str
    text: str


def choices(columns: Sequence[str], mark: str = "", between: str = "") -> Iterator[Choice]:
    """The groups `worse-<column>` and `better-<column>`, columns by number.

    Args:
        columns: of the difference.
        mark: comes before the name of each group, to tell differences apart.
        between: comes before the text of each group.
    """
    prefix = f"{between}: " if between else ""
    for index, column in enumerate(columns):
        for way, order in (("worse", "ascending"), ("better", "descending")):
            yield Choice(f"{mark}{way}-{index}", column, order, f"{prefix}{way} by {column}")


def changed_pair(
    found: Difference, position: int, groups: Sequence[str], galleries: Sequence[Gallery], labels: tuple[str, str]
) -> ChangedPairView:
    """The view of one pair.

    Args:
        found: the difference.
        position: of the pair among the rows of `found.common`.
        groups: that it belongs to.
        galleries: pictures of the first side and of the other one.
        labels: of the two sides.
    """
    first, other = (table.slice(position, 1) for table in (found.common.before, found.common.after))
    known = found.before.summary.summary.columns
    values: dict[str, tuple[float | None, ...]] = {}
    for column in found.columns:
        numbers = np.concatenate(values_and_gains(first, other, known[column.column].column)).tolist()
        values[column.column] = tuple(None if x != x else x for x in numbers)
    old, new = (row["source"][0].as_py() for row in (first, other))
    return ChangedPairView(
        anchor=anchor(f"{' '.join(labels)} {new}"),
        id=other["key"][0].as_py(),
        between=" → ".join(labels) if found.after.candidate else "",
        source=new,
        values=values,
        groups=tuple(groups),
        pictures=_side_by_side(galleries[0].pictures.get(old, ()), galleries[1].pictures.get(new, ()), labels),
        problem=galleries[0].problems.get(old) or galleries[1].problems.get(new, ""),
    )


def _side_by_side(old: Sequence[Thumbnail], new: Sequence[Thumbnail], labels: tuple[str, str]) -> tuple[Thumbnail, ...]:
    """The target, then each side's image and its difference; nothing if the pictures of one are missing."""
    if not (old and new):
        return ()
    # The crops of two sides show different parts.
    old, new = ([picture for picture in pictures if not picture.crop] for pictures in (old, new))
    targets = [picture for picture in new if picture.kind == "target"]
    return *targets, *_labelled(old, labels[0]), *_labelled(new, labels[1])


def _labelled(pictures: Sequence[Thumbnail], label: str) -> list[Thumbnail]:
    own = [picture for picture in pictures if picture.kind != "target"]
    return [replace(picture, caption=f"{label}: {picture.caption}") for picture in own]
