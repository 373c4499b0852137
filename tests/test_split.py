"""Images that hold both sides of a pair."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support import shards
from support.pictures import encode, noise, smooth

from pipeline.run import OK, USAGE, main

pytestmark = pytest.mark.heavy


@pytest.fixture
def inputs(tmp_path) -> Path:
    """Pairs as records, and as images side by side and one above the other; one image has an odd side."""
    rows = []
    for number in range(4):
        generated, target = noise(number, 20, 30), smooth(20, 30, number)
        rows.append({"id": str(number), "generated": encode(generated), "target": encode(target)})
        for axis, name in ((1, "horizontal"), (0, "vertical")):
            both = np.concatenate([generated, target], axis)
            shards.write(tmp_path / name / f"{number}.png", encode(both[1:, 1:] if number == 3 else both))
    shards.write_parquet(tmp_path / "pairs.parquet", pa.Table.from_pylist(rows[:3]))
    records = [{"id": str(n), "both": (tmp_path / f"horizontal/{n}.png").read_bytes()} for n in range(4)]
    shards.write_tfrecord(tmp_path / "both.tfrecord", records)
    return tmp_path


def run(root: Path, *flags: str) -> tuple[pa.Table, list[tuple[str, str]]]:
    output = root / "runs" / flags[0].replace("/", "_")[-40:]
    assert main([*flags, f"--output={output}", "--losses=mae,ssim", "--quiet", "--batch_size=1"]) == OK
    lines = [line for path in (output / "failures").glob("*.jsonl") for line in path.read_text().splitlines()]
    rows = [json.loads(line) for line in lines]
    return pq.read_table(output / "metrics").drop_columns("source").sort_by("id"), [
        (row["id"], row["reason"]) for row in rows
    ]


@pytest.mark.parametrize("name", ["horizontal", "vertical", "both.tfrecord"])
def test_halves_give_the_rows_of_the_pairs(inputs, name):
    expected, _ = run(inputs, f"--input={inputs}/pairs.parquet")
    if name == "both.tfrecord":
        flags = [f"--input={inputs}/{name}", "--generated_field=both", "--split=horizontal"]
    else:
        flags = [f"--generated={inputs}/{name}/*.png", f"--split={name}"]
        flags[0] = flags[0].replace("*.png", "{id}.png")
    table, failed = run(inputs, *flags)
    assert table == expected
    assert failed == [("3", "size_mismatch")]


def test_the_generated_halves_are_optimized(inputs):
    flags = ["--optimize", "--objective=mae", "--max_steps=5", "--optimized_format=png"]
    table, failed = run(inputs, f"--generated={inputs}/horizontal/{{id}}.png", "--split=horizontal", *flags)
    assert failed == [("3", "size_mismatch")]
    assert all(row["mae_optimized"] < row["mae"] for row in table.to_pylist())
    (directory,) = (inputs / "runs").glob("*/optimized")
    saved = [Image.open(path).size for path in directory.glob("*.png")]
    assert saved == 3 * [(30, 20)]


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--generated=a/*.png", "--target=b/*.png"], "drop --target"),
        (["--input=a.parquet", "--generated_field=a,b"], "takes one --generated_field"),
    ],
)
def test_wrong_flags(tmp_path, capsys, flags, problem):
    assert main([*flags, "--split=horizontal", f"--output={tmp_path}/run"]) == USAGE
    assert problem in capsys.readouterr().err
