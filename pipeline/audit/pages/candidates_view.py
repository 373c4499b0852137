"""The candidates of a run, two by two, as the pages of reports and comparisons show them."""

from dataclasses import dataclass

from pipeline.audit.pages.changed_pairs import DIFFERENCE_GAIN, ChangedPairView, Choice, changed_pair, choices
from pipeline.audit.pages.gallery import make_gallery
from pipeline.audit.pages.render import literal
from pipeline.audit.runs.candidates import MOST_NAMED, Candidates
from pipeline.audit.runs.difference import Difference

# Characters: names stand in captions, cells and a choice.
_MOST_NAME = 40


@dataclass(frozen=True)
class CandidatesView:
    """The comparisons of candidates.

    Attributes:
        differences: of every two candidates.
        pairs: those that differ most, the first of every comparison, column and direction first.
        choices: the groups of pairs to choose from.
        notices: what is missing.
    """

    differences: tuple[Difference, ...]
    pairs: tuple[ChangedPairView, ...]
    choices: tuple[Choice, ...]
    notices: tuple[str, ...]


def view_candidates(candidates: Candidates) -> CandidatesView | None:
    """The view of a run's candidates; None if there is nothing to compare."""
    differences = candidates.differences
    if not differences:
        return None
    groups = _groups(differences)
    ids: dict[str, str] = {}
    for number, position in groups:
        common = differences[number].common
        for table in (common.before, common.after):
            ids[table["source"][position].as_py()] = table["id"][position].as_py()
    names = [found.names for found in differences]
    identity = differences[0].before.record.identity
    gallery = make_gallery(ids, identity, difference_gain=DIFFERENCE_GAIN, noun="generated images")
    labels = [(literal(one, _MOST_NAME), literal(other, _MOST_NAME)) for one, other in names]
    pairs = [
        changed_pair(differences[number], position, named, (gallery, gallery), labels[number])
        for (number, position), named in groups.items()
    ]
    several = len(differences) > 1
    found = [
        choice
        for number, difference in enumerate(differences)
        for choice in choices(
            [column.column for column in difference.columns],
            f"{number}-",
            " → ".join(labels[number]) if several else "",
        )
    ]
    notices = [*([candidates.notice] if candidates.notice else []), *gallery.notices]
    return CandidatesView(differences, tuple(pairs), tuple(found), tuple(notices))


def _groups(differences: tuple[Difference, ...]) -> dict[tuple[int, int], list[str]]:
    """The groups of each named pair, by the number of the difference and the position of the pair in it."""
    groups: dict[tuple[int, int], list[str]] = {}
    for rank in range(MOST_NAMED):
        for number, found in enumerate(differences):
            for index, column in enumerate(found.columns):
                for way, positions in (("worse", column.most_worse), ("better", column.most_better)):
                    for position in positions[rank : rank + 1]:
                        groups.setdefault((number, position), []).append(f"{number}-{way}-{index}")
    return groups
