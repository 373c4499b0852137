"""The content of summary.json, which is read back as a baseline or to be merged."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from transforms.losses.protocol import Protocol
from transforms.storage.json_files import to_json
from transforms.summary.summary import Summary

SUMMARY_VERSION = 2

# The parts of a run's identity that decide its numbers. Summaries can be compared or merged only if they agree in them.
COMPARABLE = (
    *("losses", "objective", "pixel_gradient", "precision", "backend", "vgg_layers", "weights", "images", "descent"),
    *(field.name for field in fields(Protocol)),
)


def summary_file(summary: Summary, identity: Mapping[str, Any]) -> bytes:
    """The summary, with the parts of the run's identity that decide its numbers."""
    computed = {name: identity[name] for name in COMPARABLE if name in identity}
    # The order in which losses were asked for changes no number.
    computed["losses"] = sorted(computed["losses"])
    # How the images of a pair were stored changes no number.
    stored = ("split", "range", "layout")
    if "images" in computed:
        computed["images"] = {name: value for name, value in computed["images"].items() if name not in stored}
    return to_json({"version": SUMMARY_VERSION, "computed": computed, **summary.to_json()})
