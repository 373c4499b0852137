"""Refuse a run.json that is damaged or forged: its layout as a JSON Schema, as far as anything reads it."""

from collections.abc import Mapping
from typing import Any

from pipeline.audit.runs.json_layout import COUNT, TEXT, check, lists, mappings
from transforms.summary.performance import BOUND

_NUMBER = {"type": "number", "minimum": 0, "maximum": 1e15}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_NAME = {"type": ["string", "null"]}
_FLAG = {"type": "boolean"}


def _object(**properties: Any) -> dict[str, Any]:
    """An object of which earlier versions may lack any part."""
    return {"type": "object", "properties": properties}


_IDENTITY = _object(
    losses=lists(TEXT),
    objective=_NAME,
    vgg_layers=lists(TEXT),
    weights=mappings(_NAME),
    input_format=TEXT,
    crop_border=COUNT,
    gt_mean=_FLAG,
    masked=_FLAG,
    fields=_object(
        # Version 0.1.0 had one name.
        generated={"type": ["string", "array"], "items": TEXT, "minItems": 1},
        target=TEXT,
        id=_NAME,
        keep=lists(TEXT),
        allow_http=_FLAG,
        **dict.fromkeys(("image_root", "array_shape", "array_type", "mask"), TEXT),
    ),
    images={"type": "object", "additionalProperties": {"type": ["string", "integer"]}},
    # Checked by `files_of`: a schema takes a minute for a million files.
    input={"type": "array"},
)
_PERFORMANCE = {
    **_object(
        seconds=mappings(_NUMBER),
        bound_by={"enum": list(BOUND)},
        **dict.fromkeys(("waited_for_decoding", "bound_share"), _SHARE),
        **dict.fromkeys(("pairs_per_second_per_worker", "cost_per_million_pairs"), _NUMBER),
        slowest=mappings(_NUMBER),
        largest=mappings(COUNT),
    ),
    # `pipeline.console.performance` describes the stage that held the run up by these.
    "dependentRequired": {"bound_by": ["seconds", "bound_share"]},
    "if": {"properties": {"bound_by": {"const": "decoding"}}, "required": ["bound_by"]},
    "then": {"required": ["waited_for_decoding"], "properties": {"seconds": {"required": ["network"]}}},
}
_RECORD = _object(
    identity=_IDENTITY,
    performance=_PERFORMANCE,
    counts=mappings(COUNT),
    **dict.fromkeys(("versions", "scored_again"), mappings(TEXT)),
    **dict.fromkeys(("beam_flags", "precision", "devices"), lists(TEXT)),
)


def check_record(data: Mapping[str, Any]) -> None:
    """Check that a run.json has parts of the right types and within their ranges.

    Raises:
        ValueError: it has not; the message names the first such part.
    """
    check(data, _RECORD)
