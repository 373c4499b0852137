"""Prism, Beam's local engine in Go, gives the same rows as FnApiRunner. `make prism` builds it."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import shards
from support.child_setup import interruptible
from support.pictures import encode, smooth
from support.required import prism_binary

from pipeline.run import CRASH, OK, main

pytestmark = pytest.mark.heavy

SIZES = [(40, 56), (64, 64), (33, 70)]


@pytest.fixture(scope="module")
def prism() -> str:
    # It logs "really destroying service" after pytest has ended.
    logging.getLogger("apache_beam.utils.subprocess_server").setLevel(logging.ERROR)
    return f"--prism_location={prism_binary()}"


@pytest.fixture(scope="module")
def parquet(tmp_path_factory) -> Path:
    pairs = []
    for number in range(20):
        target = smooth(*SIZES[number % 3], shift=number)
        pairs.append({"id": f"{number}", "generated": encode(target, "JPEG", quality=30), "target": encode(target)})
    path = tmp_path_factory.mktemp("input") / "pairs.parquet"
    shards.write_parquet(path, pa.Table.from_pylist(pairs), row_group_size=9)
    return path


@pytest.mark.parametrize(
    "flags",
    [
        ("--losses=sobel_l1,ssim,lpips_vgg", "--objective=lpips_vgg + fd_l1", "--pixel_gradient"),
        pytest.param(
            ("--losses=mae,ssim", "--objective=mae + fd_l1", "--optimize", "--max_steps=8"), marks=pytest.mark.slow
        ),
    ],
    ids=["score", "optimize"],
)
def test_the_same_rows(prism, parquet, lpips_weights, tmp_path, flags):
    tables = []
    for name, engine in (("fn_api", "--runner=FnApiRunner"), ("prism", prism)):
        arguments = (f"--input={parquet}", f"--output={tmp_path / name}", "--chunk_pairs=6", "--quiet", *flags)
        assert main([*arguments, engine]) == OK
        parts = [directory for directory in ("metrics", "optimized") if (tmp_path / name / directory).exists()]
        tables.append([pq.read_table(tmp_path / name / part).sort_by("source") for part in parts])
        performance = json.loads((tmp_path / name / "run.json").read_text())["performance"]
        assert performance["pairs"] == 20
        assert performance["seconds"]["decoding"] > 0
    assert tables[0] == tables[1]
    assert len(tables[0][0]) == 20


@pytest.mark.slow
def test_full_disk_is_told_in_one_line_and_resumed(prism, parquet, tmp_path):
    losses = "--losses=mae,mse,psnr,charbonnier,sobel_l1,sobel_l2,fd_l1,fd_l2,gdl,multiscale_fd,tv,gmsd,ssim"
    command = [sys.executable, "-m", "pipeline.run", f"--input={parquet}", f"--output={tmp_path / 'run'}", losses]
    # There is room for run.json, but not for the metrics of so many losses.
    limited = interruptible([*command, "--quiet", prism], file_bytes=2_500)
    broken = subprocess.run(limited, check=False, stderr=subprocess.PIPE, text=True)
    assert broken.returncode == CRASH
    # Besides these lines, the worker and its threads print tracebacks of Beam's, which cannot be suppressed.
    lines = broken.stderr.splitlines()
    (told,) = (number for number, line in enumerate(lines) if line.startswith("error: "))
    assert lines[told].startswith("error: the run broke off: OSError: ")
    assert "File too large" in lines[told]
    assert lines[told + 1].startswith("The same command resumes it")
    assert main([*command[3:], "--quiet", prism]) == OK
