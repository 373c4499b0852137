"""The texts that name rows of metrics."""

import datetime

import pyarrow as pa
import pytest

from transforms.row_keys import candidates, row_key, row_keys


@pytest.mark.parametrize(
    "values",
    [
        ["a", None, "", "b]", "a"],
        [1, 2, None],
        [True, False],
        [0.5, None, 1.0, float("nan")],
        [datetime.date(2026, 1, 2), None],
        [None, None],
        [],
    ],
)
def test_keys_of_a_table_are_those_of_its_rows(values):
    columns = {"id": pa.array([f"p{number}" for number in range(len(values))], pa.string()), "candidate": values}
    table = pa.table(columns)
    assert row_keys(table).to_pylist() == [row_key(row) for row in table.to_pylist()]
    assert candidates(table).to_pylist() == ["" if value is None else str(value) for value in values]
    halves = pa.concat_tables([table.slice(0, 2), table.slice(2)])
    assert row_keys(halves) == row_keys(table)


def test_keys_without_candidates_are_ids():
    table = pa.table({"id": ["a", "b"]})
    assert row_keys(table).to_pylist() == ["a", "b"]
    assert candidates(table).to_pylist() == ["", ""]
