"""The scripts in examples/ run, print what they promise, and are short."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = {
    "score_arrays.py": (0, r"ssim +1\.0000 .* higher is better"),
    "train_with_loss.py": (0, r"noisy +mean lpips_vgg .*\ndenoised +mean lpips_vgg"),
    "judge_a_night.py": (3, r"mean of ssim .* FAIL [^$]*FAIL: 2 failed"),
}


def test_each_is_here_and_short():
    scripts = list((ROOT / "examples").glob("*"))
    assert {script.name for script in scripts} - {"__pycache__"} == set(EXAMPLES)
    assert all(len((ROOT / "examples" / name).read_text(encoding="utf-8").splitlines()) < 60 for name in EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_it_runs(name, tmp_path):
    code, said = EXAMPLES[name]
    command = [sys.executable, str(ROOT / "examples" / name), str(tmp_path)]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert re.search(said, done.stdout), done.stdout
    if name == "train_with_loss.py":
        noisy, denoised = (float(value) for value in re.findall(r"lpips_vgg ([\d.]+)", done.stdout))
        assert denoised < 0.8 * noisy
