"""The wheel is whole: installed alone, away from this checkout, it has its data, its command and its numbers."""

import os
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("pairloss", "pipeline", "transforms")

pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built of a copy, because setuptools leaves its work beside setup.py."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    run(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"),
        *("--wheel-dir", output, source),
    )
    (built,) = output.glob("pairloss-*.whl")
    return built


@pytest.fixture(scope="module")
def binaries(wheel, tmp_path_factory):
    """The bin directory of a fresh environment: this one's dependencies, and of PairLoss the wheel alone."""
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    (packages,) = environment.glob("lib/python*/site-packages")
    # Python reads no .pth file in a directory that a .pth file names: an editable PairLoss there stays unseen.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()), encoding="utf-8")
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    return environment / "bin"


def test_every_file_is_in_the_wheel(wheel):
    files = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"pairloss/py.typed", "pipeline/py.typed", "transforms/py.typed"} <= files
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == files


def test_the_command(binaries, tmp_path):
    usage = run(binaries / "pairloss", "--help", cwd=tmp_path)
    assert usage.startswith("usage: pairloss COMMAND")
    assert run(binaries / "python", "-m", "pairloss", "--help", cwd=tmp_path) == usage


def test_it_scores(binaries, tmp_path):
    code = (
        "import numpy as np, pairloss; print(pairloss.__file__); target = np.zeros((32, 32, 3), np.uint8); "
        "print(pairloss.score(target + np.uint8(51), target, losses=['mae', 'lpips_vgg']))"
    )
    place, columns = run(binaries / "python", "-c", code, cwd=tmp_path).splitlines()
    assert Path(place).is_relative_to(binaries.parent)
    assert columns.startswith("{'mae': array([0.2], dtype=float32), 'lpips_vgg': array([0.3")


def test_it_reads_its_data(binaries, tmp_path):
    code = "from pipeline.audit.judging.rules import rules_schema; print(rules_schema()['title'])"
    assert run(binaries / "python", "-c", code, cwd=tmp_path) == "Rules of a PairLoss gate\n"
