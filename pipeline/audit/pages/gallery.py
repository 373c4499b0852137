"""The pictures of chosen pairs of a run, fetched again from its input files, as far as a page has room for them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import Any

from pipeline.audit.pages.heatmap import HeatMap, LossMaps, objective_of_run
from pipeline.audit.pages.refetch import Inputs, fetch_pairs
from pipeline.audit.pages.thumbnails import Heat, Thumbnail, thumbnails
from transforms.losses.catalog import LOSSES
from transforms.losses.networks.weights_file import WeightsError
from transforms.losses.objective import Objective
from transforms.reading.input_files import InputFile

MOST_PAIRS = 48
# Characters of `data:` URIs: pictures without loss are large, but a page should open at once.
MOST_CHARACTERS = 12_000_000

# Differentiating a network takes a quarter of a second for 256 x 256 pixels on two cores, so this takes four seconds.
_NETWORK_PIXELS = 2**20

_BAD = {"lower": "high", "higher": "low", "none": "high"}

_STATES = {"gone": "is no longer there", "changed": "has changed since the run"}


@dataclass
class Gallery:
    """The result of fetching pairs.

    Attributes:
        pictures: by source of the pair.
        problems: by source of a pair without pictures: the reason, or empty if a notice gives it.
        notices: for people: what is missing or may be wrong.
    """

    pictures: dict[str, tuple[Thumbnail, ...]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


def make_gallery(
    ids: Mapping[str, str],
    identity: Mapping[str, Any],
    pixels: Mapping[str, int] | None = None,
    now: Sequence[InputFile] = (),
    worst_in: Mapping[str, str] = {},
    difference_gain: float | None = None,
    noun: str = "pairs",
) -> Gallery:
    """Fetch pairs again and make small pictures of them.

    Args:
        ids: the pairs' ids by their sources, the most important first: room and time may not suffice for all.
        identity: of the run's run.json.
        pixels: number of pixels of each pair, by source, to show where the objective wants a change; None: do not.
        now: the run's input files where they are now, if they have moved.
        worst_in: by source of a pair, the loss whose map to show, of those that have one.
        difference_gain: see `thumbnails`.
        noun: what `ids` are called in a notice.
    """
    gallery = Gallery()
    inputs = Inputs.of_run(identity, now)
    shown = dict(islice(ids.items(), MOST_PAIRS))
    gone = _check_files(shown, inputs, gallery)
    gallery.problems.update({source: "" for source in shown if _path(source) in gone})
    shown = {source: id for source, id in shown.items() if source not in gallery.problems}
    heat_map = _heat_map(identity, gallery) if pixels is not None and shown else None
    affordable = _affordable({source: pixels[source] for source in shown}) if pixels else set()
    heated = affordable if heat_map and heat_map.plan.networks else set(shown)
    loss_maps = _loss_maps({worst_in[source] for source in shown if source in worst_in}, identity, gallery)
    for source, found in fetch_pairs(shown, inputs):
        if isinstance(found, str):
            gallery.problems[source] = found
            continue
        maps = []
        loss = worst_in.get(source)
        if (
            loss_maps
            and loss in loss_maps.plan.losses
            and (source in affordable or not LOSSES[loss].network)
            and (values := loss_maps(loss, found)) is not None
        ):
            maps.append(Heat("map", f"where {loss} is {_BAD[LOSSES[loss].direction]}", values))
        if heat_map and source in heated and (gradient := heat_map(found)) is not None:
            assert heat_map.plan.objective
            maps.append(Heat("gradient", f"gradient of {_name(heat_map.plan.objective)}", gradient))
        gallery.pictures[source] = thumbnails(found, maps, difference_gain)
    if heat_map and (without := len(gallery.pictures.keys() - heated)):
        gallery.notices.append(f"{without} of the pairs have no gradient picture: the network would take too long.")
    _drop_what_does_not_fit(gallery, shown)
    if left_out := len(ids) - len(gallery.pictures) - len(gallery.problems):
        gallery.notices.append(f"{left_out} of the {len(ids)} {noun} have no pictures, to keep the page small.")
    return gallery


def _check_files(shown: Iterable[str], inputs: Inputs, gallery: Gallery) -> set[str]:
    """The files that are gone; notices name them, and those that have changed."""
    states = {path: inputs.state(path) for path in sorted({_path(source) for source in shown})}
    for path, state in states.items():
        if state != "same":
            gallery.notices.append(f"{path} {_STATES[state]}.")
    return {path for path, state in states.items() if state == "gone"}


def _path(source: str) -> str:
    return source.rpartition("#")[0]


def _affordable(pixels: Mapping[str, int]) -> set[str]:
    """As many of the first pairs as there is time for to send them through a network."""
    totals = accumulate(pixels.values())
    return {source for source, total in zip(pixels, totals, strict=True) if total <= _NETWORK_PIXELS}


def _name(objective: Objective) -> str:
    """A short name for captions, which have no room for a long sum."""
    return objective.losses[0] if len(objective.losses) == 1 else "the objective"


def _heat_map(identity: Mapping[str, Any], gallery: Gallery) -> HeatMap | None:
    objective = objective_of_run(identity)
    if objective is None:
        gallery.notices.append(
            "No gradients are shown: the run has no loss whose gradient differs from pixel to pixel. "
            "The difference shows where the images differ."
        )
        return None
    try:
        return HeatMap(objective, identity)
    except WeightsError as error:
        gallery.notices.append(
            f"The gradient of {objective} is not shown because its network is missing: {error}; "
            "`pairloss weights` fetches it."
        )
        return None


def _loss_maps(losses: set[str], identity: Mapping[str, Any], gallery: Gallery) -> LossMaps | None:
    """The maps of these losses; of those on pixels alone if a network is missing."""
    on_pixels = {name for name in losses if not LOSSES[name].network}
    try:
        return LossMaps(losses, identity) if losses else None
    except WeightsError as error:
        missing = ", ".join(sorted(losses - on_pixels))
        gallery.notices.append(f"The maps of {missing} are not shown because a network is missing: {error}")
        return LossMaps(on_pixels, identity) if on_pixels else None


def _drop_what_does_not_fit(gallery: Gallery, shown: Mapping[str, str]) -> None:
    room = MOST_CHARACTERS
    for source in shown:
        room -= sum(len(picture.uri) for picture in gallery.pictures.get(source, ()))
        if room < 0:
            gallery.pictures.pop(source, None)
