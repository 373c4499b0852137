"""Skips tests that need a tool this machine lacks, and fails them if `PAIRLOSS_REQUIRE` names the tool."""

import os
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import pytest

from transforms.losses.networks.weights_file import cache_directory


def missing(name: str, reason: str) -> NoReturn:
    """Skip the test, or fail it if the comma-separated `PAIRLOSS_REQUIRE` contains the name."""
    if name in os.environ.get("PAIRLOSS_REQUIRE", "").split(","):
        pytest.fail(f"PAIRLOSS_REQUIRE holds {name}, but {reason}", pytrace=False)
    pytest.skip(f"{name}: {reason}")


def prism_binary() -> str:
    """The binary that `PRISM` names, or that `make prism` left in the cache; without one the test is skipped."""
    path = os.environ.get("PRISM", str(cache_directory() / f"prism-{version('apache-beam')}" / "prism"))
    if not Path(path).exists():
        missing("prism", f"there is no {path}; make prism builds one")
    return path
