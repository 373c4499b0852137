"""CSV and JSON lines whose records name image files."""

import json

import pyarrow as pa
import pytest
from support import shards

from transforms.reading.list_chunks import check_fields, detect_format, list_chunks
from transforms.reading.read_chunks import read_series
from transforms.schema import Fields

FIELDS = Fields()


def write_images(root, count=5):
    for number in range(count):
        for side in ("generated", "target"):
            shards.write(root / side / f"{number}.png", f"{side} {number}".encode())


def rows(count=5):
    return [
        {"id": f"p{n}", "generated": f"generated/{n}.png", "target": f"target/{n}.png", "n": n} for n in range(count)
    ]


def write_manifest(path, records):
    if path.suffix == ".jsonl":
        lines = [json.dumps(record) for record in records]
    else:
        names = list(records[0])
        cells = [names, *([str(record[name]) for name in names] for record in records)]
        lines = [("\t" if path.suffix == ".tsv" else ",").join(row) for row in cells]
    return shards.write(path, "\n".join([*lines, ""]).encode())


def read(file, fields=FIELDS, keep=(), chunk_pairs=2):
    series = list(list_chunks(file, "auto", fields, chunk_pairs))
    encoded = [chunk for one in series for chunk in read_series(one, fields, keep)]
    assert all(len(e.pairs) + len(e.failures) == e.chunk.pairs for e in encoded if not e.chunk.error)
    return pa.concat_tables(e.pairs for e in encoded).to_pylist(), [f for e in encoded for f in e.failures]


@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.jsonl"])
class TestBoth:
    def test_pairs_are_read_by_their_paths(self, tmp_path, name):
        write_images(tmp_path)
        file = write_manifest(tmp_path / name, rows())
        pairs, failures = read(file)
        assert failures == []
        assert pairs == [
            {
                "id": f"p{n}",
                "source": f"{file.path}#{n}",
                "generated": f"generated {n}".encode(),
                "target": f"target {n}".encode(),
            }
            for n in range(5)
        ]

    def test_fields_are_checked_and_kept(self, tmp_path, name):
        write_images(tmp_path)
        file = write_manifest(tmp_path / name, rows())
        fields = Fields(keep=("n",))
        keep = check_fields(file.path, detect_format(file.path), fields)
        number = pa.int64() if name == "m.jsonl" else pa.string()
        assert keep == (pa.field("n", number),)
        pairs, _ = read(file, fields, keep)
        assert [row["n"] for row in pairs] == pa.array(range(5)).cast(number).to_pylist()
        with pytest.raises(ValueError, match="no field 'real' \\(--target_field\\)"):
            check_fields(file.path, detect_format(file.path), Fields(target="real"))

    def test_other_names_and_another_root(self, tmp_path, name):
        write_images(tmp_path / "images")
        records = [{"lq": row["generated"], "gt": row["target"]} for row in rows(2)]
        file = write_manifest(tmp_path / name, records)
        fields = Fields(generated=("lq",), target="gt", image_root=f"{tmp_path}/images")
        pairs, failures = read(file, fields)
        assert failures == []
        assert [row["id"] for row in pairs] == [f"{name}#0", f"{name}#1"]

    def test_bad_records_cost_a_row_each(self, tmp_path, name):
        write_images(tmp_path)
        records = rows()
        records[1]["target"] = "../outside.png"
        records[2]["target"] = "https://example.com/a.png"
        records[3]["target"] = "target/none.png"
        manifest = tmp_path / name
        write_manifest(manifest, records)
        file = shards.write(manifest, manifest.read_bytes() + b"\n{broken\n")
        pairs, failures = read(file)
        assert [row["id"] for row in pairs] == ["p0", "p4"]
        assert [(failure.id, failure.reason) for failure in failures] == [
            ("p1", "outside_root"),
            ("p2", "not_a_file"),
            ("p3", "unreadable_image"),
            (f"{name}#5", "damaged_line"),
        ]

    @pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n\n"])
    def test_an_empty_file(self, tmp_path, name, content):
        ((chunk,),) = list_chunks(shards.write(tmp_path / name, content), "auto", FIELDS)
        assert chunk.pairs == 0
        assert ("no field" in chunk.error) == (name != "m.jsonl")

    def test_a_manifest_that_has_changed(self, tmp_path, name):
        write_images(tmp_path)
        file = write_manifest(tmp_path / name, rows())
        listed = list(list_chunks(file, "auto", FIELDS, 2))
        write_manifest(tmp_path / name, rows(4))
        encoded = [chunk for series in listed for chunk in read_series(series, FIELDS)]
        assert [failure.scope for failure in encoded[-1].failures] == ["file"]
        assert "has changed" in encoded[-1].failures[0].message


def test_csv_with_quoted_line_breaks_and_a_mark_of_byte_order(tmp_path):
    shards.write(tmp_path / "a\nb,c.png", b"image")
    content = '\ufeffid,generated,target\r\n1,"a\nb,c.png","a\nb,c.png"\r\n\r\n2,"a\nb,c.png",\r\n'
    pairs, failures = read(shards.write(tmp_path / "m.csv", content.encode()), chunk_pairs=1)
    assert failures == []
    assert [(row["id"], row["generated"], row["target"]) for row in pairs] == [
        ("1", b"image", b"image"),
        ("2", b"image", None),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id;generated;target\np;generated/0.png;target/0.png\n", ["p"]),
        ("id, generated, target\np, generated/0.png, target/0.png\n", ["p"]),
        ('"id", "generated", "target"\n"a, b", "generated/0.png", "target/0.png"\n', ["a, b"]),
        ("\n\r\nid,generated,target\n\np,generated/0.png,target/0.png\n", ["p"]),
        ("\ufeff\nid,generated,target\np,generated/0.png,target/0.png\n", ["p"]),
        ("id\tgenerated\ttarget\n p\tgenerated/0.png\ttarget/0.png\n", [" p"]),
    ],
)
def test_how_programs_write_csv(tmp_path, text, expected):
    write_images(tmp_path, 1)
    pairs, failures = read(shards.write(tmp_path / "m.csv", text.encode()))
    assert failures == []
    assert [pair["id"] for pair in pairs] == expected


def test_a_quote_that_is_never_closed_is_reported_as_the_end_of_the_file(tmp_path):
    write_images(tmp_path)
    lines = [f"p{n},generated/{n}.png,target/{n}.png" for n in range(5)]
    text = "\n".join(["id,generated,target", *lines[:3], f'"{lines[3]}', lines[4], ""])
    pairs, failures = read(shards.write(tmp_path / "m.csv", text.encode()))
    assert [pair["id"] for pair in pairs] == ["p0", "p1", "p2"]
    assert [(failure.scope, failure.reason) for failure in failures] == [
        ("pair", "damaged_line"),
        ("file", "unreadable_file"),
    ]
    assert "is never closed" in failures[1].message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,generated,target\n".encode("utf-16"), r"m\.csv: its text is UTF-16; save it as UTF-8"),
        (b"id,generated,target\rp,g,t\r", r"m\.csv: not CSV"),
    ],
)
def test_what_is_not_csv_is_refused_by_name(tmp_path, content, message):
    file = shards.write(tmp_path / "m.csv", content)
    with pytest.raises(ValueError, match=message):
        check_fields(file.path, "csv", FIELDS)


def test_half_of_a_pair_of_surrogates_costs_no_other_record(tmp_path):
    write_images(tmp_path)
    records = [*rows(), {"id": "k", "generated": "\ud800.png", "target": "target/0.png", "n": 7}]
    records[1]["id"] = "a\ud800"
    records[2]["n"] = "b\udfff"
    pairs, failures = read(write_manifest(tmp_path / "m.jsonl", records), keep=[pa.field("n", pa.string())])
    assert [(pair["id"], pair["n"]) for pair in pairs] == [
        ("p0", "0"),
        ("a?", "1"),
        ("p2", "b?"),
        ("p3", "3"),
        ("p4", "4"),
    ]
    assert [(failure.id, failure.reason) for failure in failures] == [("k", "unreadable_image")]


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([1.5, "x"], pa.string(), ["1.5", "x"]),
        ([True, "x"], pa.string(), ["true", "x"]),
        ([1, 2.5], pa.float64(), [1.0, 2.5]),
        ([1, 10**29], pa.string(), ["1", str(10**29)]),
        ([None, "x"], pa.string(), [None, "x"]),
    ],
)
def test_kept_values_of_several_types_in_jsonl(tmp_path, values, dtype, expected):
    write_images(tmp_path)
    for order in (1, -1):
        records = [{**row, "n": value} for row, value in zip(rows(), values[::order], strict=False)]
        file = write_manifest(tmp_path / "m.jsonl", records)
        (kept,) = check_fields(file.path, "jsonl", Fields(keep=("n",)))
        assert kept == pa.field("n", dtype)
        pairs, failures = read(file, Fields(keep=("n",)), [kept])
        assert failures == []
        assert [pair["n"] for pair in pairs] == expected[::order]


def test_values_of_other_types_in_jsonl(tmp_path):
    write_images(tmp_path)
    records = [row | {"target": value} for row, value in zip(rows(3), ({"path": "target/0.png"}, 7, None), strict=True)]
    records.append({"id": "few"})
    pairs, failures = read(write_manifest(tmp_path / "m.jsonl", records))
    assert [(row["id"], row["target"]) for row in pairs] == [("p0", b"target 0"), ("p2", None)]
    assert [(failure.id, failure.reason) for failure in failures] == [("p1", "wrong_type"), ("few", "missing_field")]


def test_parquet_of_paths(tmp_path):
    write_images(tmp_path)
    records = rows()
    records[1]["target"] = "../outside.png"
    for record in records:
        record["generated"] = {"bytes": None, "path": record["generated"]}
    records[2]["generated"] = {"bytes": b"in the record", "path": "/etc/hosts"}
    records[3]["generated"] = None
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("generated", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            *(("target", pa.string()), ("n", pa.int64())),
        ]
    )
    file = shards.write_parquet(tmp_path / "m.parquet", pa.Table.from_pylist(records, schema))
    fields = Fields(keep=("n",))
    pairs, failures = read(file, fields, check_fields(file.path, "parquet", fields))
    assert [(row["id"], row["generated"], row["target"], row["n"]) for row in pairs] == [
        ("p0", b"generated 0", b"target 0", 0),
        ("p2", b"in the record", b"target 2", 2),
        ("p3", None, b"target 3", 3),
        ("p4", b"generated 4", b"target 4", 4),
    ]
    assert [(failure.id, failure.reason) for failure in failures] == [("p1", "outside_root")]


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_a_kept_field_costs_no_pair(tmp_path, name):
    write_images(tmp_path, 3)
    records = rows(3)
    records[1]["n"] = "many"
    file = write_manifest(tmp_path / name, records)
    keep = (pa.field("n", pa.int64()), pa.field("absent", pa.string()))
    series = list(list_chunks(file, "auto", fields := Fields(keep=("n", "absent"))))
    (encoded,) = [chunk for one in series for chunk in read_series(one, fields, keep)]
    assert encoded.failures == ()
    assert encoded.pairs["n"].to_pylist() == [0, None, 2]
    assert encoded.pairs["notes"].to_pylist() == [
        ["not_kept:absent"],
        ["not_kept:n", "not_kept:absent"],
        ["not_kept:absent"],
    ]


def test_notes_of_a_parquet_file_of_paths(tmp_path):
    write_images(tmp_path, 3)
    records = rows(3)
    records[0]["target"] = "../outside.png"
    records[1]["n"] = 1 << 40
    file = shards.write_parquet(tmp_path / "m.parquet", pa.Table.from_pylist(records))
    series = list(list_chunks(file, "auto", fields := Fields(keep=("n",))))
    (encoded,) = [chunk for one in series for chunk in read_series(one, fields, (pa.field("n", pa.int32()),))]
    assert encoded.pairs.select(["id", "n", "notes"]).to_pylist() == [
        {"id": "p1", "n": None, "notes": ["not_kept:n"]},
        {"id": "p2", "n": 2, "notes": []},
    ]
