"""The performance record of a run for people: what held it up, and the pairs that stand out."""

from collections.abc import Mapping
from typing import Any

from pipeline.console.numbers import number, percent, printable

_WHERE = {
    "listing": "went into listing the input",
    "reading": "went into waiting for reading",
    "network": "went into the network",
    "losses": "went into the losses",
    "optimizing": "went into the descents",
    "writing": "went into writing",
}


def bottleneck(performance: Mapping[str, Any]) -> str:
    """The stage that held a run up, and the price of a pair if it is known; empty if nothing was measured.

    Args:
        performance: as `transforms.summary.performance` makes it.
    """
    bound = performance.get("bound_by")
    if not bound:
        return ""
    if bound == "decoding":
        who = "network" if performance["seconds"]["network"] else "losses"
        waited = f"{percent(performance['waited_for_decoding'])} of the time the {who} waited for decoding"
    else:
        waited = f"{percent(performance['bound_share'])} of the workers' time {_WHERE[bound]}"
    rate = performance.get("pairs_per_second_per_worker")
    cost = performance.get("cost_per_million_pairs")
    parts = [f"{bound}-bound: {waited}"]
    parts += [f"{number(rate)} pairs/s per worker"] if rate else []
    parts += [f"{number(cost)} per million pairs"] if cost else []
    return ", ".join(parts)


def pairs_named(performance: Mapping[str, Any]) -> list[str]:
    """A line for the slowest pairs, and one for the largest, if they are known."""
    slowest = [f"{printable(key)} ({seconds:.2f} s)" for key, seconds in performance.get("slowest", {}).items()]
    largest = [
        f"{printable(key)} ({pixels / 1e6:.2f} megapixels)" for key, pixels in performance.get("largest", {}).items()
    ]
    named = {"slowest": slowest, "largest": largest}
    return [f"{name} pairs: {', '.join(pairs)}" for name, pairs in named.items() if pairs]
