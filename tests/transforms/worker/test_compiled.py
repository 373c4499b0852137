"""Compiled functions, with and without a place to keep their code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).parents[3]
MODULE = """
from numba import types
from transforms.worker.compiled import compiled

@compiled(types.int64(types.int64))
def double(number):
    return 2 * number
"""
PRINT = "import doubling; print(doubling.double(21), sum(doubling.double.stats.cache_hits.values()))"
FULL_DISK = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
FULL_DISK += "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0));"


def run(directory: Path, code: str = PRINT) -> str:
    (directory / "doubling.py").write_text(MODULE, encoding="utf-8")
    os.utime(directory / "doubling.py", (1, 1))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(directory), str(ROOT)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NUMBA_CACHE_DIR": str(directory / "kept"),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_next_process_loads_what_the_first_one_compiled(tmp_path: Path) -> None:
    assert [run(tmp_path), run(tmp_path)] == ["42 0", "42 1"]


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_damaged_files_are_no_obstacle(suffix: str, tmp_path: Path) -> None:
    """Such as those that a power failure left empty."""
    run(tmp_path)
    (damaged,) = tmp_path.glob(f"kept/**/*.{suffix}")
    damaged.write_bytes(b"")
    assert run(tmp_path) == "42 0"


def test_a_full_disk_is_no_obstacle(tmp_path: Path) -> None:
    """The code stays in memory."""
    assert run(tmp_path, FULL_DISK + PRINT) == "42 0"


def test_an_error_of_the_code_is_told(tmp_path: Path) -> None:
    """It is not taken for one of the cache."""
    (tmp_path / "wrong.py").write_text(MODULE.replace("2 * number", "number.missing"), encoding="utf-8")
    with pytest.raises(subprocess.CalledProcessError) as raised:
        run(tmp_path, "import wrong")
    assert "missing" in raised.value.stderr
