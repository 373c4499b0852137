"""The pictures of chosen pairs of a run, fetched again from its input files, within what a page can hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import Any

from pipeline.audit.pages.heatmap import HeatMap, objective_of_run
from pipeline.audit.pages.refetch import Inputs, fetch_pairs
from pipeline.audit.pages.thumbnails import Thumbnail, thumbnails
from transforms.losses.networks.weights_file import WeightsError
from transforms.losses.objective import Objective

MOST_PAIRS = 48
# Of `data:` URIs: with them a page stays below 5 MB.
MOST_CHARACTERS = 4_000_000

# To differentiate a network takes a quarter of a second for a picture of 256 x 256 on two cores, so this four seconds.
_NETWORK_PIXELS = 2**20


@dataclass
class Gallery:
    """What came of fetching.

    Attributes:
        pictures: per source of a pair.
        problems: per source of a pair without pictures, why.
        notices: what is missing or may be wrong on the whole, for people.
    """

    pictures: dict[str, tuple[Thumbnail, ...]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


def make_gallery(
    ids: Mapping[str, str],
    identity: Mapping[str, Any],
    pixels: Mapping[str, int] | None = None,
    difference_gain: float | None = None,
) -> Gallery:
    """Fetch pairs again and make small pictures of them.

    Args:
        ids: the pairs' ids by their sources, those first that matter most: they get the room and the time there is.
        identity: of the run's run.json.
        pixels: number of pixels of each pair, by source, to show where the objective wants a change; None: do not.
        difference_gain: see `thumbnails`.
    """
    gallery = Gallery()
    inputs = Inputs.of_run(identity)
    shown = dict(islice(ids.items(), MOST_PAIRS))
    for path in sorted({source.rpartition("#")[0] for source in shown}):
        if problem := inputs.changed(path):
            gallery.notices.append(f"{path} {problem}.")
    heat_map = _heat_map(identity, gallery) if pixels is not None and shown else None
    heated = _heated(heat_map, {source: pixels[source] for source in shown}) if heat_map and pixels else set()
    for source, found in fetch_pairs(shown, inputs):
        if isinstance(found, str):
            gallery.problems[source] = found
            continue
        gradient = heat_map(found) if heat_map and source in heated else None
        objective = _name(heat_map.plan.objective) if heat_map and heat_map.plan.objective else ""
        gallery.pictures[source] = thumbnails(found, gradient, objective, difference_gain)
    if heat_map and (without := len(gallery.pictures.keys() - heated)):
        gallery.notices.append(f"{without} of the pairs are shown without a gradient: a network takes long for it.")
    _drop_what_does_not_fit(gallery, shown)
    if left_out := len(ids) - len(gallery.pictures) - len(gallery.problems):
        gallery.notices.append(f"{left_out} of the {len(ids)} pairs are listed without pictures: the page stays small.")
    return gallery


def _heated(heat_map: HeatMap, pixels: Mapping[str, int]) -> set[str]:
    """The pairs to differentiate: all, or those first that there is time for."""
    if not heat_map.plan.networks:
        return set(pixels)
    totals = accumulate(pixels.values())
    return {source for source, total in zip(pixels, totals, strict=True) if total <= _NETWORK_PIXELS}


def _name(objective: Objective) -> str:
    """For captions, in which a long sum has no room."""
    return objective.losses[0] if len(objective.losses) == 1 else "the objective"


def _heat_map(identity: Mapping[str, Any], gallery: Gallery) -> HeatMap | None:
    objective = objective_of_run(identity)
    if objective is None:
        gallery.notices.append("The run has no loss with a gradient: where a change is wanted is not shown.")
        return None
    try:
        return HeatMap(objective, identity)
    except WeightsError as error:
        gallery.notices.append(
            f"The gradient of {objective} is not shown, for its network is not here: {error}; "
            "pairloss weights fetches it."
        )
        return None


def _drop_what_does_not_fit(gallery: Gallery, shown: Mapping[str, str]) -> None:
    room = MOST_CHARACTERS
    for source in shown:
        room -= sum(len(picture.uri) for picture in gallery.pictures.get(source, ()))
        if room < 0:
            gallery.pictures.pop(source, None)
