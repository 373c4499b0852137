"""A rule, whatever its kind: the types of its keys, the pairs that it measures, and the measured value."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pipeline.console.numbers import as_given
from transforms.summary.scored_pairs import ScoredPairs
from transforms.summary.summary import Summary

# A statistic of fewer pairs than this says little.
LEAST_PAIRS = 30


@dataclass(frozen=True)
class Measured:
    """A measured value.

    Attributes:
        value: NaN if there is none.
        pairs: number of pairs it rests on; if it compares two runs, of the smaller one.
        reason: why it cannot be judged, or empty.
    """

    value: float
    pairs: int
    reason: str = ""


@dataclass(frozen=True)
class Scope:
    """The pairs to measure: all pairs of a run, or one slice of them.

    Attributes:
        run: summary of the whole run.
        pairs: the pairs to measure.
        baseline: the same pairs of the baseline; None without one.
        slice: which pairs they are, such as `camera=left`; empty for all.
    """

    run: Summary
    pairs: ScoredPairs
    baseline: ScoredPairs | None
    slice: str = ""


# The types of a rule's keys, each with the JSON Schema of its values.
Level = Annotated[Literal["fail", "warn"], {"enum": ["fail", "warn"], "description": "The outcome of a violation."}]
Name = Annotated[str, {"type": "string", "description": "A column of the metrics: a loss, or objective."}]
Number = Annotated[float, {"type": "number"}]
NonNegative = Annotated[float, {"type": "number", "minimum": 0}]
Fraction = Annotated[float, {"type": "number", "minimum": 0, "maximum": 1}]
LeastPairs = Annotated[
    int, {"type": "integer", "minimum": 1, "description": "With fewer pairs the value is reported, but not judged."}
]
EachSlice = Annotated[
    bool, {"type": "boolean", "description": "Judge the pairs of each value of --slice_by as well as all of them."}
]
Distance = Annotated[
    Literal["wasserstein", "psi", "ks"],
    {
        "enum": ["wasserstein", "psi", "ks"],
        "description": "Wasserstein distance in standard deviations of the baseline; population stability index; "
        "Kolmogorov-Smirnov statistic.",
    },
]


@dataclass(frozen=True, kw_only=True)
class Rule(ABC):
    """One rule. A subclass is a kind; its fields of an annotated type are the keys of a rules file.

    Attributes:
        kind: the kind's name in a rules file.
        line: where the rule begins in its file, from 1.
        column: column of the metrics; empty if the kind measures none.
        each_slice: whether it holds for every slice as well.
        least_pairs: with fewer pairs it is skipped; 0: any number of pairs can be judged.
        min: smallest allowed value.
        max: largest allowed value.
        level: what a violation means.
    """

    kind: ClassVar[str]

    line: int = 0
    each_slice: bool = False
    least_pairs: int = 0
    # Factories, because subclasses inherit a plain default and could not make the key required.
    column: str = field(default_factory=str)
    min: float = field(default_factory=lambda: -math.inf)
    max: float = field(default_factory=lambda: math.inf)
    level: Level = "fail"

    @abstractmethod
    def measure(self, scope: Scope) -> Measured:
        """The value to judge."""

    @property
    def what(self) -> str:
        """Names the measured value for people: `quantile 0.95 of lpips_vgg`."""
        return f"{self.kind} of {self.column}" if self.column else self.kind

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value that hold."""
        return self.min, self.max

    def examples(self, pairs: ScoredPairs) -> tuple[dict[str, Any], ...]:
        """Id, source and value of some pairs that violate the rule, the worst first."""
        return ()


def limits(least: float, below: str, most: float, above: str) -> list[str]:
    """The finite ones of two limits, each after its sign."""
    texts = [f"{below} {as_given(least)}"] if least > -math.inf else []
    return texts + ([f"{above} {as_given(most)}"] if most < math.inf else [])
