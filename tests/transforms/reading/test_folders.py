"""Runs of two folders: the same numbers as from records, resuming, and reports."""

import csv
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.io.filesystems import FileSystems
from support import shards
from support.killed_run import finished_chunks
from support.pictures import encode, noise, smooth

from pipeline.audit.__main__ import main as audit
from pipeline.run import CRASH, OK, USAGE, main

pytestmark = pytest.mark.heavy

PAIRS = 23
OPTIONS = ("--losses=mae,ssim,gmsd", "--quiet", "--chunk_pairs=5", "--batch_size=1")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """Two folders with 23 pairs, of which a tenth lacks a file or has a broken one, and the same pairs as records."""
    root = tmp_path_factory.mktemp("folders")
    records = []
    for number in range(PAIRS):
        name, height = f"{number:03}", 24 + number % 3
        record = {
            "id": name,
            "generated": encode(noise(number, height, 32), "JPEG" if number % 2 else "PNG"),
            "target": encode(smooth(height, 32, number)),
        }
        if number == 7:
            record["generated"] = b"broken"
        if number != 11:
            shards.write(root / "out" / f"{name}x4.png", record["generated"])
        shards.write(root / "gt" / f"{name}.png", record["target"])
        records.append(record | ({"generated": None} if number == 11 else {}))
    shards.write_parquet(root / "pairs.parquet", pa.Table.from_pylist(records))
    shards.write_tfrecord(root / "pairs.tfrecord", records)
    named = [{"id": r["id"], "lq": f"out/{r['id']}x4.png", "gt": f"gt/{r['id']}.png"} for r in records]
    (root / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in named))
    shards.write_parquet(root / "paths.parquet", pa.Table.from_pylist(named))
    with open(root / "pairs.csv", "w") as file:
        writer = csv.DictWriter(file, ("id", "lq", "gt"))
        writer.writeheader()
        writer.writerows(named)
    return root


def of_folders(root: Path) -> list[str]:
    return [f"--generated={root}/out/{{id}}x4.png", f"--target={root}/gt/{{id}}.png"]


def rows(output: Path) -> pa.Table:
    return pq.read_table(output / "metrics").sort_by("id")


def failures(output: Path) -> dict[str, tuple[str, str]]:
    lines = [line for path in (output / "failures").iterdir() for line in path.read_text().splitlines()]
    return {record["id"]: (record["stage"], record["reason"]) for record in map(json.loads, lines)}


@pytest.fixture(scope="module")
def scored(folders, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "folders"
    assert main([*of_folders(folders), f"--output={output}", *OPTIONS]) == OK
    return output


class TestRun:
    def test_every_file_is_a_row_or_a_failure(self, scored, folders):
        table = rows(scored)
        assert table["id"].to_pylist() == [f"{n:03}" for n in range(PAIRS) if n not in (7, 11)]
        assert table["source"][0].as_py() == f"{folders}/out/000x4.png#0"
        assert failures(scored) == {"007": ("decode", "unknown_format"), "011": ("pair", "no_generated")}
        counts = json.loads((scored / "run.json").read_text())["counts"]
        assert (counts["listed"], counts["scored"], counts["failed"]) == (PAIRS, PAIRS - 2, 2)
        assert [path.name[-27:-8] for path in sorted((scored / "metrics").iterdir())] == [
            f"{start:09}-{min(start + 5, PAIRS):09}" for start in range(0, PAIRS, 5)
        ]

    @pytest.mark.parametrize("name", ["pairs.parquet", "pairs.tfrecord", "pairs.jsonl", "pairs.csv", "paths.parquet"])
    def test_records_of_the_same_pairs_give_the_same_bits(self, scored, folders, tmp_path, name):
        names = [] if name in ("pairs.parquet", "pairs.tfrecord") else ["--generated_field=lq", "--target_field=gt"]
        assert main([f"--input={folders / name}", f"--output={tmp_path}/run", *names, *OPTIONS]) == OK
        assert rows(tmp_path / "run").drop_columns("source") == rows(scored).drop_columns("source")
        assert failures(tmp_path / "run").keys() == failures(scored).keys()

    @pytest.mark.slow
    def test_processes_give_the_same_rows(self, scored, folders, tmp_path):
        processes = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
        assert main([*of_folders(folders), f"--output={tmp_path}/run", *OPTIONS, *processes]) == OK
        assert rows(tmp_path / "run") == rows(scored)

    def test_further_fields_are_kept_and_can_slice(self, folders, tmp_path):
        for model in "ab":
            for number in range(3):
                image = (folders / f"gt/{number:03}.png").read_bytes()
                shards.write(tmp_path / "out" / f"{number:03}" / f"{model}.png", image)
        command = [f"--generated={tmp_path}/out/{{id}}/{{model}}.png", f"--target={folders}/gt/{{id}}.png"]
        command += [f"--output={tmp_path}/run", "--losses=mae", "--slice_by=model"]
        assert main(command) == OK
        table = rows(tmp_path / "run")
        assert table["id"].to_pylist() == [f"{n:03}/{model}" for n in range(3) for model in "ab"]
        assert table["model"].to_pylist() == ["a", "b"] * 3
        assert len(failures(tmp_path / "run")) == PAIRS - 3

    def test_says_how_many_belong_together(self, folders, tmp_path, capsys):
        main([*of_folders(folders), f"--output={tmp_path}/run", "--losses=mae"])
        told = capsys.readouterr().err
        assert "22 generated images with 22 targets; without a partner, or with a double key: 1" in told

    @pytest.mark.parametrize(
        ("generated", "target", "message"),
        [
            ("out/*.png", "gt/*.png", "Try --generated="),
            ("out/*.jpg", "gt/*.png", "matches no file"),
        ],
    )
    def test_wrong_templates_end_before_the_run(self, folders, tmp_path, capsys, generated, target, message):
        command = [f"--generated={folders}/{generated}", f"--target={folders}/{target}", f"--output={tmp_path}/run"]
        assert main([*command, "--losses=mae"]) == USAGE
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


class TestResume:
    def test_an_interrupted_run_goes_on(self, scored, folders, tmp_path, monkeypatch):
        output, rename = tmp_path / "run", FileSystems.rename

        def rename_three_chunks(sources, targets):
            if len(finished_chunks(output)) == 3:
                raise KeyboardInterrupt
            rename(sources, targets)

        command = [*of_folders(folders), f"--output={output}", *OPTIONS, "--chunk_pairs=1"]
        with monkeypatch.context() as patch:
            patch.setattr(FileSystems, "rename", rename_three_chunks)
            assert main(command) == CRASH
        done = finished_chunks(output)
        assert len(done) == 3
        assert main(command) == OK
        assert finished_chunks(output).items() >= done.items()
        assert rows(output) == rows(scored)

    @pytest.mark.parametrize("change", ["added", "changed", "touched"])
    def test_other_files_are_another_run(self, folders, tmp_path, capsys, change):
        for side in ("out", "gt"):
            for number in range(3):
                shards.write(tmp_path / side / f"{number}.png", encode(smooth(16, 16, number)))
        output = tmp_path / "run"
        command = [f"--generated={tmp_path}/out", f"--target={tmp_path}/gt", f"--output={output}", "--losses=mae"]
        assert main(command) == OK
        (output / "_SUCCESS").unlink()
        path = tmp_path / "out" / ("9.png" if change == "added" else "1.png")
        if change == "touched":
            os.utime(path, (1, 1))
        else:
            shards.write(path, encode(smooth(16, 20)))
        assert main(command) == USAGE
        assert "unfinished run with other input" in capsys.readouterr().err
        assert main([*command, "--overwrite"]) == OK
        assert len(list((output / "listing").iterdir())) == 1


class TestReport:
    def test_it_shows_the_pictures_wherever_the_run_is_now(self, scored, tmp_path, capsys):
        moved = tmp_path / "moved"
        moved.symlink_to(scored)
        for run in (scored, moved):
            page = tmp_path / "report.html"
            assert audit(["report", str(run), f"--output={page}"]) == OK
            assert "have no pictures" not in capsys.readouterr().err
            assert page.read_text().count("data:image") >= PAIRS - 2

    def test_a_picture_that_is_gone_is_named(self, tmp_path, capsys):
        for side in ("out", "gt"):
            for number in range(2):
                shards.write(tmp_path / side / f"{number}.png", encode(smooth(16, 16, number)))
        sides = [f"--generated={tmp_path}/out", f"--target={tmp_path}/gt"]
        assert main([*sides, f"--output={tmp_path}/run", "--losses=mae", "--quiet"]) == OK
        (tmp_path / "out/1.png").unlink()
        shards.write(tmp_path / "gt/0.png", encode(smooth(20, 20)))
        assert audit(["report", f"{tmp_path}/run"]) == OK
        page = (tmp_path / "run/report.html").read_text()
        assert f"{tmp_path}/out/1.png is no longer there" in page
        assert "when the run started" in page


def test_names_in_another_unicode_form_are_noted(tmp_path):
    """As from a Mac, whose tools store an accent as a character of its own."""
    shards.write(tmp_path / "out" / "cafe\u0301.png", encode(noise(0, 24, 32)))
    shards.write(tmp_path / "gt" / "caf\u00e9.png", encode(smooth(24, 32)))
    assert main([f"--generated={tmp_path}/out", f"--target={tmp_path}/gt", f"--output={tmp_path}/run", *OPTIONS]) == OK
    (row,) = rows(tmp_path / "run").to_pylist()
    assert (row["id"], row["notes"]) == ("caf\u00e9", ["other_spelling"])
