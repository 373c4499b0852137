"""Compiled functions, with and without a place to keep their code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).parents[3]
# Compiled as it is defined, or at the first call.
WHEN = ["types.int64(types.int64)", ""]
MODULE = """
import numba
from numba import types
from transforms.worker.compiled import compiled

versions = []
njit = numba.njit

def noted(*arguments, **options):
    def note(function):
        versions.append(njit(*arguments, **options)(function))
        return versions[-1]
    return note

numba.njit = noted

@compiled({signature})
def double(number):
    return {body}
"""
HITS = "sum(sum(version.stats.cache_hits.values()) for version in doubling.versions)"
PRINT = f"import doubling; print(doubling.double(21), {HITS})"
FULL_DISK = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
FULL_DISK += "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0));"


def run(directory: Path, signature: str, code: str = PRINT, body: str = "2 * number") -> str:
    (directory / "doubling.py").write_text(MODULE.format(signature=signature, body=body), encoding="utf-8")
    os.utime(directory / "doubling.py", (1, 1))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(directory), str(ROOT)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NUMBA_CACHE_DIR": str(directory / "kept"),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("signature", WHEN)
def test_the_next_process_loads_what_the_first_one_compiled(signature: str, tmp_path: Path) -> None:
    assert [run(tmp_path, signature), run(tmp_path, signature)] == ["42 0", "42 1"]


@pytest.mark.parametrize("signature", WHEN)
@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_damaged_files_are_no_obstacle(suffix: str, signature: str, tmp_path: Path) -> None:
    """Such as those that a power failure left empty."""
    run(tmp_path, signature)
    (damaged,) = tmp_path.glob(f"kept/**/*.{suffix}")
    damaged.write_bytes(b"")
    assert run(tmp_path, signature) == "42 0"


@pytest.mark.parametrize("signature", WHEN)
def test_a_full_disk_is_no_obstacle(signature: str, tmp_path: Path) -> None:
    """The code stays in memory."""
    assert run(tmp_path, signature, FULL_DISK + PRINT) == "42 0"


@pytest.mark.parametrize("signature", WHEN)
def test_an_error_of_the_code_is_told(signature: str, tmp_path: Path) -> None:
    """It is not taken for one of the cache."""
    with pytest.raises(subprocess.CalledProcessError) as raised:
        run(tmp_path, signature, body="number.missing")
    assert "missing" in raised.value.stderr
