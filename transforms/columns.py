"""The meaning of a column of the metrics, which travels in the schema of the table and in summary.json."""

import json
from dataclasses import asdict, dataclass
from typing import Literal

import pyarrow as pa

# In the metadata of a field.
COLUMN_KEY = b"column"

# Columns of files that earlier versions wrote, by their old names.
RENAMED = {"objective_saved": "objective_of_saved"}


@dataclass(frozen=True)
class Column:
    """A column of the metrics that holds numbers.

    Attributes:
        name: of the column.
        loss: name of the loss in `catalog.LOSSES`; empty: it is not the value of a single loss.
        when: `before`: of the image as it was read; `after`: of the optimized image; empty: of neither.
        direction: whether `lower` or `higher` is better; `none`: neither is.
        formula: of the loss; empty without one.
    """

    name: str
    loss: str
    when: Literal["before", "after", ""]
    direction: Literal["lower", "higher", "none"]
    formula: str = ""

    @property
    def higher_is_better(self) -> bool:
        """True if large values are good."""
        return self.direction == "higher"

    def field(self, dtype: pa.DataType) -> pa.Field:
        """The field of a table of metrics; `columns_of` gets the column back from its metadata."""
        return pa.field(self.name, dtype, metadata={COLUMN_KEY: json.dumps(asdict(self))})


def columns_of(schema: pa.Schema) -> tuple[Column, ...]:
    """The columns that hold numbers, in order, of a table of metrics or of a Parquet file of them."""
    found = ((field.metadata or {}).get(COLUMN_KEY) for field in schema)
    return tuple(Column(**json.loads(text)) for text in found if text)
