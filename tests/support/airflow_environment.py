"""A separate environment for Airflow, whose requirements conflict with those of the tests."""

import subprocess
import sys
from functools import cache
from pathlib import Path

from support.required import missing

from transforms.losses.networks.weights_file import cache_directory

VERSION = "3.3.2"

_CONSTRAINTS = Path(__file__).parents[1] / "data" / "airflow_constraints.txt"


@cache
def airflow_python() -> Path:
    """The environment's Python; skips the test if the environment cannot be made.

    The first use makes the environment: 300 MB, about a minute. A later use completes an unfinished one.
    """
    directory = cache_directory() / "envs" / "airflow"
    python = directory / "bin" / "python"
    # If the pinned versions are there already, pip installs nothing and asks no index.
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"--constraint={_CONSTRAINTS}"]
    for command in ([sys.executable, "-m", "venv", directory], [python, *install, f"apache-airflow=={VERSION}"]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            missing("airflow", f"its environment {directory} cannot be made: {done.stderr.strip()[-300:]}")
    return python
