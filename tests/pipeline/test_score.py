"""`pairloss score`: the short form of `pairloss run`."""

import csv
import re

import pyarrow.parquet as pq
import pytest
from support import shards
from support.pictures import encode, smooth

from pipeline.run import NOTHING_SCORED, OK, USAGE
from pipeline.score import main


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        image = smooth(6 if number == 3 else 24, 32, number)
        shards.write(tmp_path / "gt" / f"{number}.png", encode(image))
        shards.write(tmp_path / "out" / f"{number}.bmp", encode(image // 2 if number else image, "BMP"))
    return tmp_path


def test_two_folders_are_enough(folders, capsys):
    assert main(["out/", "gt/", "--losses=psnr,ssim,mae"]) == OK
    told = capsys.readouterr().out
    (output,) = (folders / "runs").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d{6}", output.name)
    rows = pq.read_table(output / "metrics").sort_by("id").to_pylist()
    assert [(row["id"], row["source"]) for row in rows] == [(str(n), f"out/{n}.bmp#{n}") for n in range(4)]
    table = {
        cells[0]: cells[1:]
        for line in told[told.index("means") :].splitlines()
        if len(cells := [cell.strip() for cell in re.split("[│┃]", line)[1:-1]]) > 1
    }
    assert table["loss"] == ["mean", "pairs", "infinite", "undefined"]
    finite = [row["psnr"] for row in rows[1:]]
    assert table["psnr"] == [f"{sum(finite) / 3:.4g}", "3", "1", "0"]
    assert table["ssim"][1:] == ["3", "0", "1"]
    assert table["mae"][1:] == ["4", "0", "0"]
    assert "the means are of the finite values" in told


def test_flags_of_run_and_csv(folders, capsys):
    assert main(["out", "gt", "--csv", "--output=here/", "--losses", "mae", "--quiet"]) == OK
    assert capsys.readouterr().out.startswith("means")
    rows = [row for path in (folders / "here/metrics_csv").iterdir() for row in csv.DictReader(path.open())]
    assert sorted(row["id"] for row in rows) == list("0123")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], USAGE, "generated, target. See pairloss score --help"),
        (["out"], USAGE, "target. See pairloss score --help"),
        (["out", "gt", "more"], USAGE, "unexpected argument 'more'"),
        (["out", "missing"], USAGE, "--target='missing' matches no file"),
        (["out", "gt", "--losses=nope"], USAGE, "nope"),
    ],
)
def test_wrong_arguments(folders, capsys, arguments, code, message):
    assert main(arguments) == code
    assert message in capsys.readouterr().err
    assert not (folders / "runs").exists()


def test_nothing_scored_has_no_means(folders, capsys):
    for path in (folders / "gt").iterdir():
        path.write_bytes(b"broken")
    assert main(["out", "gt", "--losses=mae"]) == NOTHING_SCORED
    assert "means" not in capsys.readouterr().out
