"""Refuse a summary.json that is damaged or forged: its layout as a JSON Schema, and whether its numbers agree."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.audit.runs.json_layout import COUNT, TEXT, check, lists, mappings, objects
from transforms.summary.distribution import Distribution
from transforms.summary.scored_pairs import ScoredPairs
from transforms.summary.summary import Summary

_FINITE = {"type": ["number", "null"], "minimum": -3.41e38, "maximum": 3.41e38}
# A fraction of bounded length: Fraction("1e99999999") would take hours.
_EXACT = {"type": "string", "pattern": r"^-?[0-9]{1,200}(/[1-9][0-9]{0,199})?$"}
_COUNTS = mappings(COUNT)

# The bins of float32 values: 1.01**-10400 is below the smallest one, 1.01**9000 above the largest.
_BINS = objects(
    bins=lists({"type": "integer", "minimum": -10_400, "maximum": 9_000}, uniqueItems=True), counts=lists(COUNT)
)
_ROWS = lists(objects(id=TEXT, source=TEXT, height=COUNT, width=COUNT, notes=lists(TEXT)))
_LOSS = objects(
    **dict.fromkeys(("count", "null", "nan", "infinite", "negative_infinite", "zero"), COUNT),
    **dict.fromkeys(("min", "max"), _FINITE),
    **dict.fromkeys(("worst", "best"), _ROWS),
    **dict.fromkeys(("sum", "sum_of_squares"), _EXACT),
    histogram=objects(negative=_BINS, positive=_BINS),
)
_PAIRS = {"notes": _COUNTS, "sizes": _COUNTS, "losses": mappings(_LOSS)}
_SLICE = objects(pairs=COUNT, **_PAIRS)
_VALUE = {**_SLICE, "properties": {**_SLICE["properties"], "value": {"type": ["string", "null"]}}}
_DIRECTION = {"enum": ["lower", "higher", "none"]}
_SUMMARY = objects(
    computed=objects(losses=lists(TEXT)),
    counts=objects(**dict.fromkeys(("listed", "scored", "failed", "unread"), COUNT)),
    chunks=COUNT,
    precision=lists(TEXT),
    failures=_COUNTS,
    failure_examples=mappings(lists(objects(id=TEXT, source=TEXT, message=TEXT))),
    failed_files=mappings(TEXT),
    columns=lists(objects(name=TEXT, loss=TEXT, when=TEXT, direction=_DIRECTION, formula=TEXT)),
    **_PAIRS,
    slices={**objects(by=TEXT, values=lists(_VALUE), other=_SLICE), "type": ["object", "null"]},
)

# Earlier versions did not have them.
_SUMMARY["properties"] |= {"duplicate_ids": COUNT, "devices": lists(TEXT)}


def check_layout(data: Mapping[str, Any]) -> None:
    """Check that a summary has every part that is read, of the right type and within its range.

    Raises:
        ValueError: it does not; the message names the first such part.
    """
    check(data, _SUMMARY)
    names = sorted(column["name"] for column in data["columns"])
    slices = data["slices"]
    parts = [data, *(part for part in (*slices["values"], slices["other"]) if part["pairs"])] if slices else [data]
    for part in parts:
        if sorted(part["losses"]) != names:
            raise ValueError(f"the columns are {', '.join(names)}, but the losses {', '.join(sorted(part['losses']))}")


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
