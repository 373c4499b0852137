"""A run with masks from folders to its report: what it says of itself, what it shows, and the same pairs packed."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from support import shards
from support.pictures import encode, noise, smooth

from pipeline.cli import main
from transforms.columns import columns_of

OPTIONS = ("--losses=mae,ssim,ms_ssim", "--crop_border=2", "--quiet", "--batch_size=1")


@pytest.fixture
def folders(tmp_path):
    """Five pairs with masks; that of pair 3 is empty, and pair 4 lacks its own."""
    for number in range(5):
        mask = np.zeros((24, 32), np.uint8)
        mask[4:20, 4 : 20 + 2 * number] = 255 if number != 3 else 1
        files = {"out": noise(number, 24, 32), "gt": smooth(24, 32, number)} | ({"mask": mask} if number != 4 else {})
        for folder, image in files.items():
            shards.write(tmp_path / folder / f"{number}.png", encode(image))
    return tmp_path


@pytest.mark.heavy
def test_from_folders_to_the_report(folders):
    sides = [f"--generated={folders}/out", f"--target={folders}/gt", f"--mask={folders}/mask"]
    output = folders / "run"
    assert main(["run", *sides, f"--output={output}", *OPTIONS, "--objective=ssim", "--pixel_gradient"]) == 0
    table = pq.read_table(output / "metrics").sort_by("id")
    assert table["id"].to_pylist() == ["0", "1", "2"]
    # The coverage is that of the picture without its border.
    np.testing.assert_allclose(table["mask_coverage"], [16 * (16 + 2 * n) / (20 * 28) for n in range(3)], rtol=1e-6)
    assert table["notes"].to_pylist() == [["unmaskable:ms_ssim"]] * 3
    (mae,) = (column for column in columns_of(table.schema) if column.name == "mae")
    assert mae.formula == "mean |d|; without 2 pixels at each border; over the pixels in the mask"
    failures = [json.loads(line) for path in (output / "failures").iterdir() for line in path.open()]
    assert {row["id"]: (row["stage"], row["reason"]) for row in failures} == {
        "3": ("score", "empty_mask"),
        "4": ("pair", "no_mask"),
    }
    assert json.loads((output / "run.json").read_text())["identity"]["masked"] is True
    assert json.loads((output / "summary.json").read_text())["computed"]["masked"] is True
    assert main(["audit", "report", str(output)]) == 0
    page = (output / "report.html").read_text()
    for text in (
        "over the pixels in the mask",
        "where ssim is low",
        "gradient of ssim",
        "no mask can be applied to ms_s",
    ):
        assert text in page, text
    (folders / "rules.json").write_text('{"rules": [{"rule": "mean", "column": "mae", "max": 1}]}')
    assert main(["run", *sides[:2], f"--output={folders}/plain", *OPTIONS, "--objective=ssim", "--pixel_gradient"]) == 0
    gate = ["audit", "gate", str(output), f"--rules={folders}/rules.json"]
    assert main(["audit", "compare", f"{folders}/plain", str(output)]) == 2
    assert main(gate) == 0
    assert main([*gate, f"--baseline={folders}/plain"]) == 2


@pytest.mark.heavy
def test_packed_pairs_keep_their_masks(folders):
    sides = [f"--generated={name}={folders}/out" for name in "ab"]
    sides += [f"--target={folders}/gt", f"--mask={folders}/mask"]
    assert main(["pack", *sides, f"--output={folders}/packed", "--quiet"]) == 0
    assert pq.read_schema(folders / "packed/pairs-00000.parquet").names == [
        *("id", "source", "generated", "target", "mask", "candidate")
    ]
    packed = [f"--input={folders}/packed/*.parquet", "--mask_field=mask", "--keep_fields=candidate"]
    runs = []
    for name, flags in {"folders": sides, "packed": packed}.items():
        assert main(["run", *flags, f"--output={folders}/runs/{name}", *OPTIONS]) == 0
        table = pq.read_table(folders / "runs" / name / "metrics").drop_columns("source")
        runs.append(table.sort_by([("id", "ascending"), ("candidate", "ascending")]).to_pylist())
    assert len(runs[0]) == 2 * 3
    assert runs[0] == runs[1]
