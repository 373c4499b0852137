"""Summarize scored pairs, all of a run or a slice of it: sizes, notes, and each loss's distribution."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.columns import Column
from transforms.summary.distribution import Distribution, distributions
from transforms.summary.extreme_pairs import time_text

# These limits keep memory and summary.json small whatever the data; the rest is counted as `OTHER`.
MOST_SIZES = 100
MOST_SLICES = 50
OTHER = "other"

# The value of a slice: the kept field's value as text; None where it is null.
SliceValue = str | None


@dataclass
class ScoredPairs:
    """The summary of scored pairs.

    Attributes:
        count: number of pairs.
        sizes: number of pairs per size, `WxH` in pixels; beyond `MOST_SIZES`, the largest are counted as `OTHER`.
        notes: number of pairs per kind of note, such as `generated:cropped_from_WxH`.
        columns: distribution per column of the metrics.
    """

    count: int = 0
    sizes: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    columns: dict[str, Distribution] = field(default_factory=dict)

    @classmethod
    def of_table(cls, metrics: pa.Table, columns: Iterable[Column]) -> "ScoredPairs":
        """The summary of a table of metrics."""
        result = cls(len(metrics), _sizes(metrics), _notes(metrics), distributions(metrics, columns))
        result.sizes = _bounded(result.sizes)
        return result

    def merge(self, other: "ScoredPairs") -> None:
        """Add the other's pairs to this summary."""
        self.count += other.count
        self.notes.update(other.notes)
        self.sizes.update(other.sizes)
        self.sizes = _bounded(self.sizes)
        for name, distribution in other.columns.items():
            self.columns.setdefault(name, Distribution(distribution.column)).merge(distribution)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "notes": dict(sorted(self.notes.items())),
            "sizes": dict(sorted(self.sizes.items(), key=_by_size)),
            "losses": {name: distribution.to_json() for name, distribution in self.columns.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], count: int, columns: Mapping[str, Column]) -> "ScoredPairs":
        """Read back what `to_json` wrote for `count` pairs, with the columns by name.

        Raises:
            KeyError, TypeError, ValueError: the data is not of that form.
        """
        found = {name: Distribution.from_json(entry, columns[name]) for name, entry in data["losses"].items()}
        for name, distribution in found.items():
            if distribution.pairs != count:
                raise ValueError(f"{name} has {distribution.pairs} values of {count} pairs")
        return cls(count, Counter(data["sizes"]), Counter(data["notes"]), found)


@dataclass
class Slices:
    """The pairs by the value of a kept field.

    Only the first `MOST_SLICES` values in sorted order have a summary of their own. A value that is not among the first
    of a part cannot be among the first of the whole, so the result does not depend on the order of merging.

    Attributes:
        by: name of the field.
        values: the summary per value.
        other: the summary of all pairs with further values.
    """

    by: str
    values: dict[SliceValue, ScoredPairs] = field(default_factory=dict)
    other: ScoredPairs = field(default_factory=ScoredPairs)

    @classmethod
    def of_table(cls, metrics: pa.Table, columns: Iterable[Column], by: str) -> "Slices":
        """The slices of a table of metrics."""
        texts = _texts(metrics[by])
        columns = tuple(columns)
        result = cls(by)
        for value in dict.fromkeys(texts):
            mask = pa.array([text == value for text in texts])
            result.values[value] = ScoredPairs.of_table(metrics.filter(mask), columns)
        result._fold()
        return result

    def merge(self, other: "Slices") -> None:
        """Add the other's pairs to these slices.

        Raises:
            ValueError: they are sliced by another field.
        """
        if other.by != self.by:
            raise ValueError(f"slices by {self.by} and slices by {other.by} cannot be merged")
        for value, pairs in other.values.items():
            self.values.setdefault(value, ScoredPairs()).merge(pairs)
        self.other.merge(other.other)
        self._fold()

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        values = sorted(self.values.items(), key=_null_first)
        return {
            "by": self.by,
            "values": [{"value": value, **_counted(pairs)} for value, pairs in values],
            "other": _counted(self.other),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], columns: Mapping[str, Column]) -> "Slices":
        """Read back what `to_json` wrote, with the columns by name.

        Raises:
            KeyError, TypeError, ValueError: the data is not of that form.
        """
        values = {entry["value"]: ScoredPairs.from_json(entry, entry["pairs"], columns) for entry in data["values"]}
        return cls(data["by"], values, ScoredPairs.from_json(data["other"], data["other"]["pairs"], columns))

    def _fold(self) -> None:
        for value, pairs in sorted(self.values.items(), key=_null_first)[MOST_SLICES:]:
            self.other.merge(pairs)
            del self.values[value]


def _counted(pairs: ScoredPairs) -> dict[str, Any]:
    return {"pairs": pairs.count, **pairs.to_json()}


def _null_first(entry: tuple[SliceValue, Any]) -> tuple[bool, str]:
    return entry[0] is not None, entry[0] or ""


def _texts(column: pa.ChunkedArray) -> list[SliceValue]:
    """Values as text, the same on every machine."""
    if pa.types.is_temporal(column.type):
        return time_text(column).to_pylist()
    if pa.types.is_string(column.type):
        return column.to_pylist()
    return [None if value is None else str(value) for value in column.to_pylist()]


def _sizes(metrics: pa.Table) -> Counter[str]:
    sides = np.stack([metrics["width"].to_numpy(), metrics["height"].to_numpy()], axis=1)
    sizes, numbers = np.unique(sides, axis=0, return_counts=True)
    return Counter({f"{w}x{h}": int(number) for (w, h), number in zip(sizes, numbers, strict=True)})


def _notes(metrics: pa.Table) -> Counter[str]:
    """The number of notes of each kind. Sizes in a note are replaced, since there may be any number of sizes."""
    result: Counter[str] = Counter()
    for entry in pc.value_counts(pc.list_flatten(metrics["notes"])).to_pylist():
        result[re.sub(r"\d+x\d+", "WxH", entry["values"])] += entry["counts"]
    return result


def _bounded(sizes: Counter[str]) -> Counter[str]:
    """Keep the smallest sizes and count the rest as one. As for slices, the order of merging does not matter."""
    if len(sizes) <= MOST_SIZES:
        return sizes
    ordered = sorted(sizes.items(), key=_by_size)
    # `OTHER` sorts last, so it is part of the rest.
    rest = sum(number for _, number in ordered[MOST_SIZES:])
    return Counter(dict(ordered[:MOST_SIZES]) | {OTHER: rest})


def _by_size(entry: tuple[str, int]) -> tuple[bool, int, int, int]:
    if entry[0] == OTHER:
        return True, 0, 0, 0
    width, height = map(int, entry[0].split("x"))
    return False, width * height, width, height
