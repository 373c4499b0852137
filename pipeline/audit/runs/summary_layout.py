"""Refuse a summary.json that is damaged or forged: its layout as a JSON Schema, and whether its numbers agree."""

from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator

from transforms.summary.distribution import Distribution
from transforms.summary.scored_pairs import ScoredPairs
from transforms.summary.summary import Summary

_MOST_CHARACTERS = 200

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 2**53}
_COUNTS = {"type": "object", "additionalProperties": _COUNT}
_FINITE = {"type": ["number", "null"], "minimum": -3.41e38, "maximum": 3.41e38}
# A fraction of bounded length: Fraction("1e99999999") would take hours.
_EXACT = {"type": "string", "pattern": r"^-?[0-9]{1,200}(/[1-9][0-9]{0,199})?$"}


def _object(**properties: Any) -> dict[str, Any]:
    """An object that has these properties, and perhaps others."""
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(items: Any, **schema: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **schema}


# The bins of float32 values: 1.01**-10400 is below the smallest one, 1.01**9000 above the largest.
_BINS = _object(
    bins=_list({"type": "integer", "minimum": -10_400, "maximum": 9_000}, uniqueItems=True), counts=_list(_COUNT)
)
_ROWS = _list(_object(id=_TEXT, source=_TEXT, height=_COUNT, width=_COUNT, notes=_list(_TEXT)))
_LOSS = _object(
    **dict.fromkeys(("count", "null", "nan", "infinite", "negative_infinite", "zero"), _COUNT),
    **dict.fromkeys(("min", "max"), _FINITE),
    **dict.fromkeys(("worst", "best"), _ROWS),
    **dict.fromkeys(("sum", "sum_of_squares"), _EXACT),
    histogram=_object(negative=_BINS, positive=_BINS),
)
_PAIRS = {"notes": _COUNTS, "sizes": _COUNTS, "losses": {"type": "object", "additionalProperties": _LOSS}}
_SLICE = _object(pairs=_COUNT, **_PAIRS)
_VALUE = {**_SLICE, "properties": {**_SLICE["properties"], "value": {"type": ["string", "null"]}}}
_DIRECTION = {"enum": ["lower", "higher", "none"]}
_SUMMARY = _object(
    computed={"type": "object"},
    counts=_object(**dict.fromkeys(("listed", "scored", "failed", "unread"), _COUNT)),
    chunks=_COUNT,
    precision=_list(_TEXT),
    failures=_COUNTS,
    failure_examples={"type": "object", "additionalProperties": _list(_object(id=_TEXT, source=_TEXT, message=_TEXT))},
    failed_files={"type": "object", "additionalProperties": _TEXT},
    columns=_list(_object(name=_TEXT, loss=_TEXT, when=_TEXT, direction=_DIRECTION, formula=_TEXT)),
    **_PAIRS,
    slices={**_object(by=_TEXT, values=_list(_VALUE), other=_SLICE), "type": ["object", "null"]},
)


# Earlier versions did not have them.
_SUMMARY["properties"] |= {"duplicate_ids": _COUNT, "devices": _list(_TEXT)}


def check_layout(data: Mapping[str, Any]) -> None:
    """Check that a summary has every part that is read, of the right type and within its range.

    Raises:
        ValueError: it does not; the message names the first such part.
    """
    errors = sorted(Draft202012Validator(_SUMMARY).iter_errors(data), key=lambda error: list(map(str, error.path)))
    if errors:
        place = ".".join(map(str, errors[0].absolute_path))
        raise ValueError(f"{place}{': ' if place else ''}{errors[0].message}"[:_MOST_CHARACTERS])


def check_numbers(summary: Summary) -> None:
    """Check that the numbers of a summary agree with each other, as those of every real run do.

    Raises:
        ValueError: they do not.
    """
    if summary.scored + summary.failed != summary.read:
        raise ValueError(f"{summary.scored} pairs scored and {summary.failed} failed are not the {summary.read} read")
    if summary.failures.total() != summary.failed:
        raise ValueError(f"the failures by reason add up to {summary.failures.total()}, not to {summary.failed}")
    slices = summary.slices
    if slices and sum(pairs.count for pairs in _slices(summary)) != summary.scored:
        raise ValueError(f"the slices by {slices.by} do not hold the {summary.scored} scored pairs")
    for pairs in (summary.pairs, *_slices(summary)):
        for distribution in pairs.columns.values():
            if not _agrees(distribution):
                raise ValueError(f"the numbers of {distribution.column.name} contradict each other")


def _slices(summary: Summary) -> Iterator[ScoredPairs]:
    if summary.slices:
        yield from summary.slices.values.values()
        yield summary.slices.other


def _agrees(values: Distribution) -> bool:
    least, most = values.minimum, values.maximum
    if not values.finite:
        return values.positive_infinite >= 0 and values.total == values.squares == 0 and least > most
    bins = [value for value, _ in values.ascending()]
    return (
        values.positive_infinite >= 0
        and least <= values.mean <= most
        and 0 <= values.variance <= 1.001 * (most - least) ** 2
        # A value is within 0.5 % of the middle of its bin.
        and abs(bins[0] - least) <= 0.01 * abs(least)
        and abs(bins[-1] - most) <= 0.01 * abs(most)
    )
