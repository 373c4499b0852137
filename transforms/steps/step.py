"""The base of every step."""

from dataclasses import dataclass

import apache_beam as beam


@dataclass(eq=False)
class Step(beam.PTransform):
    """A transform whose settings are the fields of a dataclass."""

    def __post_init__(self) -> None:
        super().__init__()
