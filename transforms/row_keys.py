"""The key of a row of the metrics: the id of its pair and, where targets have several, the candidate."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

# The column that tells the candidates of one target apart: with the id it names a row. Several fields of generated
# images give it, and so does a kept field of that name.
CANDIDATE = "candidate"


def row_key(row: Mapping[str, Any]) -> str:
    """The text that names a row of the metrics: its id and, in brackets, which candidate it is."""
    candidate = row.get(CANDIDATE)
    return row["id"] if candidate in (None, "") else f"{row['id']} [{candidate}]"


def row_keys(metrics: pa.Table) -> pa.ChunkedArray:
    """`row_key` of every row."""
    named = candidates(metrics)
    marks = pc.if_else(pc.equal(named, ""), "", pc.binary_join_element_wise(" [", named, "]", ""))
    return pc.binary_join_element_wise(metrics["id"], marks, "")


def candidates(metrics: pa.Table) -> pa.ChunkedArray:
    """The candidate of every row as text, empty where there is none."""
    if CANDIDATE not in metrics.schema.names:
        return pa.chunked_array([pa.repeat("", len(metrics))])
    column = metrics[CANDIDATE]
    # A kept field of that name may be of any scalar type; its texts are those of `row_key`.
    distinct = pc.unique(column)
    texts = pa.array(["" if value is None else str(value) for value in distinct.to_pylist()], pa.string())
    return pa.chunked_array([texts.take(pc.index_in(column, distinct).combine_chunks())])
