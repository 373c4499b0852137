"""`pairloss pack`: the same metrics from the shards as from the input."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support import shards
from support.pictures import encode, noise, smooth

from pipeline.cli import main

PAIRS = 11
OPTIONS = ("--losses=mae,ssim", "--quiet", "--batch_size=1")


@pytest.fixture
def folders(tmp_path) -> Path:
    """Two folders; pair 3 is broken, and pair 5 lacks its target."""
    for number in range(PAIRS):
        image = b"broken" if number == 3 else encode(noise(number, 20, 24), "JPEG")
        shards.write(tmp_path / "out" / f"{number:02}.png", image)
        if number != 5:
            shards.write(tmp_path / "gt" / f"{number:02}.png", encode(smooth(20, 24, number)))
    return tmp_path


def metrics(output: Path) -> list[dict[str, object]]:
    return pq.read_table(output / "metrics").drop_columns("source").sort_by("id").to_pylist()


def test_an_output_that_is_a_file_is_one_line_of_error(folders, capsys):
    (folders / "file").touch()
    sides = [f"--generated={folders}/out", f"--target={folders}/gt"]
    assert main(["pack", *sides, f"--output={folders}/file", "--quiet"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: cannot write to --output={folders}/file: ")
    assert error.count("\n") == 1


@pytest.mark.heavy
def test_shards_give_the_same_metrics(folders):
    sides = [f"--generated={folders}/out", f"--target={folders}/gt"]
    assert main(["pack", *sides, f"--output={folders}/packed", "--shard_pairs=5", "--quiet"]) == 0
    assert sorted(path.name for path in (folders / "packed").iterdir()) == [
        "_failures.jsonl",
        *(f"pairs-{number:05}.parquet" for number in range(3)),
    ]
    assert [pq.read_metadata(path).num_rows for path in sorted((folders / "packed").glob("*.parquet"))] == [4, 4, 1]
    lines = (folders / "packed" / "_failures.jsonl").read_text().splitlines()
    failed = {row["id"]: (row["stage"], row["reason"]) for row in map(json.loads, lines)}
    assert failed == {"03": ("decode", "unknown_format"), "05": ("pair", "no_target")}
    assert main(["run", *sides, f"--output={folders}/runs/folders", *OPTIONS]) == 0
    assert main(["run", f"--input={folders}/packed/*.parquet", f"--output={folders}/runs/packed", *OPTIONS]) == 0
    assert metrics(folders / "runs/packed") == metrics(folders / "runs/folders")


def test_candidates_and_kept_fields(folders):
    sides = [*(f"--generated={name}={folders}/out" for name in "ab"), f"--target={folders}/gt"]
    assert main(["pack", *sides, f"--output={folders}/packed", "--quiet"]) == 0
    table = pq.read_table(folders / "packed")
    assert len(table) == 2 * (PAIRS - 2)
    assert table["candidate"].to_pylist()[:3] == ["a", "b", "a"]
    run = ["run", f"--input={folders}/packed/*.parquet", "--keep_fields=candidate", f"--output={folders}/run"]
    assert main([*run, *OPTIONS]) == 0
    summary = json.loads((folders / "run/summary.json").read_text())
    assert [one["value"] for one in summary["slices"]["values"]] == ["a", "b"]
    assert summary["duplicate_ids"] == 0


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ([], "give either --input"),
        (["--input=none.parquet"], "matches no file"),
        (["--generated=out", "--target=gt", "--shard_pairs=0"], "--shard_pairs"),
    ],
)
def test_wrong_flags(tmp_path, capsys, flags, problem):
    assert main(["pack", *flags, f"--output={tmp_path}/packed"]) == 2
    assert problem in capsys.readouterr().err


def test_a_directory_in_use_is_refused(folders, capsys):
    sides = [f"--generated={folders}/out", f"--target={folders}/gt"]
    assert main(["pack", *sides, f"--output={folders}/out"]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_a_second_run_leaves_the_shards_of_the_first(folders, capsys):
    command = ["pack", f"--generated={folders}/out", f"--target={folders}/gt", f"--output={folders}/packed", "--quiet"]
    assert main(command) == 0
    before = {path: path.read_bytes() for path in (folders / "packed").iterdir()}
    assert main(command) == 2
    assert f"--output={folders}/packed is not empty; give an empty or a new directory" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (folders / "packed").iterdir()} == before
