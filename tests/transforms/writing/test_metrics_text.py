"""Metrics as CSV and JSON lines: read back by their own readers, they say what the table says."""

import csv
import io
import json

import numpy as np
import pyarrow as pa
import pytest

from transforms.losses.plan import Plan
from transforms.schema import metrics_schema, optimization_fields
from transforms.writing.metrics_text import TEXT_FORMATS, to_csv, to_jsonl

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"]
HARMLESS = ["a=1", "ünï-日本", "", " =1", "1-2", "'=1"]
ODD = ['a"b', "a,b", "a\nb", "a\r\nb", "a\rb", "a;b", '","', "\u2028", "\x00", "ünï 日本 🙂"]


def table(kept: pa.Array | None = None, rows: int = 1, **columns: object) -> pa.Table:
    """Metrics with one kept field and the loss `mae`; `columns` replaces some."""
    kept = pa.array(["left"] * rows) if kept is None else kept
    values = {
        "id": [f"pair-{number}" for number in range(rows)],
        "source": [f"in.parquet#{number}" for number in range(rows)],
        "height": [4] * rows,
        "width": [5] * rows,
        "kept": kept,
        "mae": [0.1] * rows,
        "notes": [[]] * rows,
    } | columns
    return pa.table(values, schema=metrics_schema(Plan(("mae",)).columns, [pa.field("kept", kept.type)]))


def read_csv(metrics: pa.Table) -> list[dict[str, str]]:
    text = to_csv(metrics)
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def read_jsonl(metrics: pa.Table) -> list[dict[str, object]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    lines = to_jsonl(metrics).splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def test_csv_byte_for_byte():
    metrics = table(rows=2, mae=[0.1, None], notes=[["generated:gray", "target:exif_rotated"], []])
    assert to_csv(metrics).encode() == (
        b"id,source,height,width,kept,mae,notes\r\n"
        b"pair-0,in.parquet#0,4,5,left,0.1,generated:gray;target:exif_rotated\r\n"
        b"pair-1,in.parquet#1,4,5,left,,\r\n"
    )


def test_jsonl_byte_for_byte():
    metrics = table(rows=2, mae=[0.1, None], notes=[["generated:gray", "target:exif_rotated"], []])
    assert to_jsonl(metrics).encode() == (
        b'{"id": "pair-0", "source": "in.parquet#0", "height": 4, "width": 5, "kept": "left", "mae": 0.1,'
        b' "notes": ["generated:gray", "target:exif_rotated"]}\n'
        b'{"id": "pair-1", "source": "in.parquet#1", "height": 4, "width": 5, "kept": "left", "mae": null,'
        b' "notes": []}\n'
    )


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_are_guarded_in_csv_alone(text):
    metrics = table(pa.array([text]), id=[text], source=[text], notes=[[text]])
    (row,) = read_csv(metrics)
    assert {row[name] for name in ("id", "source", "kept", "notes")} == {f"'{text}"}
    (row,) = read_jsonl(metrics)
    assert (row["id"], row["source"], row["kept"], row["notes"]) == (text, text, text, [text])


def test_a_field_may_be_called_like_a_formula():
    (row,) = read_csv(table().rename_columns({"kept": "=1+1"}))
    assert row["'=1+1"] == "left"


@pytest.mark.parametrize("text", [*HARMLESS, *ODD])
def test_other_text_is_as_it_was(text):
    metrics = table(pa.array([text]), id=[text])
    for (row,) in (read_csv(metrics), read_jsonl(metrics)):
        assert (row["id"], row["kept"]) == (text, text)


@pytest.mark.parametrize(
    ("value", "cell", "plain"),
    [
        (0.0, "0", 0.0),
        (-0.25, "-0.25", -0.25),
        (1e-30, "1e-30", 1e-30),
        (float("inf"), "inf", None),
        (float("-inf"), "-inf", None),
        (float("nan"), "nan", None),
        (None, "", None),
    ],
)
def test_losses(value, cell, plain):
    metrics = table(mae=pa.array([value], pa.float32()))
    assert read_csv(metrics)[0]["mae"] == cell
    assert read_jsonl(metrics)[0]["mae"] == plain


def test_floats_are_read_back_exactly():
    bits = np.random.default_rng(0).integers(0, 2**32, 2000, dtype=np.uint32).view(np.float32)
    values = bits[np.isfinite(bits)]
    metrics = table(rows=len(values), mae=pa.array(values))
    for rows in (read_csv(metrics), read_jsonl(metrics)):
        assert np.array_equal(np.array([row["mae"] for row in rows], np.float32), values)


@pytest.mark.parametrize(
    ("kept", "cell", "plain"),
    [
        (pa.array([True]), "true", True),
        (pa.array([2**64 - 1], pa.uint64()), "18446744073709551615", 2**64 - 1),
        (pa.array([-1], pa.int8()), "-1", -1),
        (pa.array([0.5], pa.float16()), "0.5", 0.5),
        (pa.array([0.1]), "0.1", 0.1),
        (pa.array([19000], pa.int32()).cast(pa.date32()), "2022-01-08", "2022-01-08"),
        (pa.array([0], pa.timestamp("s")), "1970-01-01T00:00:00", "1970-01-01T00:00:00"),
        (pa.array([-1], pa.timestamp("ms")), "1969-12-31T23:59:59.999", "1969-12-31T23:59:59.999"),
        (
            pa.array([1], pa.timestamp("ns", "Europe/Berlin")),
            "1970-01-01T00:00:00.000000001Z",
            "1970-01-01T00:00:00.000000001Z",
        ),
        (pa.array([1], pa.timestamp("s", "No/Such")), "1970-01-01T00:00:01Z", "1970-01-01T00:00:01Z"),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_kept_fields(kept, cell, plain):
    # The null beside it has the same type.
    metrics = table(pa.concat_arrays([kept, pa.nulls(1, kept.type)]), rows=2)
    assert [row["kept"] for row in read_csv(metrics)] == [cell, ""]
    assert [row["kept"] for row in read_jsonl(metrics)] == [plain, None]


def test_trace_of_optimized_pairs():
    added = {
        "stop_reason": ["target", None],
        "trace": [[{"step": 0, "objective": 0.1}, {"step": 5, "objective": float("nan")}], None],
    }
    metrics = table(rows=2)
    for field in optimization_fields(Plan(("mae",)).optimization_columns, trace=True):
        metrics = metrics.append_column(field, pa.array(added.get(field.name, [None, None]), field.type))
    course = [{"step": 0, "objective": 0.1}, {"step": 5, "objective": None}]
    first, second = read_jsonl(metrics)
    assert (first["stop_reason"], first["trace"]) == ("target", course)
    assert (second["stop_reason"], second["trace"]) == (None, None)
    first, second = read_csv(metrics)
    assert (first["stop_reason"], json.loads(first["trace"])) == ("target", course)
    assert (second["stop_reason"], second["trace"], second["mae_optimized"]) == ("", "", "")


def test_slices_and_many_chunks():
    whole = table(rows=6, notes=[[str(number)] for number in range(6)])
    parts = pa.concat_tables([whole.slice(1, 2), whole.slice(4, 2)])
    for to_text in TEXT_FORMATS.values():
        assert to_text(parts) == to_text(whole.take([1, 2, 4, 5]))


def test_no_pairs():
    assert to_csv(table(rows=0)) == "id,source,height,width,kept,mae,notes\r\n"
    assert to_jsonl(table(rows=0)) == ""
