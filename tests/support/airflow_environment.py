"""An environment with Airflow, beside that of the tests, whose libraries it need not agree with."""

import subprocess
import sys
from functools import cache
from pathlib import Path

from support.required import missing

from pipeline.weights import cached_weights

VERSION = "3.3.2"

_CONSTRAINTS = Path(__file__).parents[1] / "data" / "airflow_constraints.txt"


@cache
def airflow_python() -> Path:
    """Its Python. The environment is made at first use; skips the test where it cannot be made.

    It is 300 MB, and takes a minute to make. A second use completes one that an earlier one left unfinished.
    """
    directory = cached_weights().parent / "envs" / "airflow"
    python = directory / "bin" / "python"
    # Installs nothing, and asks no index, where the pinned versions are there already.
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"--constraint={_CONSTRAINTS}"]
    for command in ([sys.executable, "-m", "venv", directory], [python, *install, f"apache-airflow=={VERSION}"]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            missing("airflow", f"its environment {directory} cannot be made: {done.stderr.strip()[-300:]}")
    return python
