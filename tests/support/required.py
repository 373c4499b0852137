"""Skips tests that need a tool this machine lacks, and fails them if `PAIRLOSS_REQUIRE` names the tool."""

import os
from typing import NoReturn

import pytest


def missing(name: str, reason: str) -> NoReturn:
    """Skip the test, or fail it if the comma-separated `PAIRLOSS_REQUIRE` contains the name."""
    if name in os.environ.get("PAIRLOSS_REQUIRE", "").split(","):
        pytest.fail(f"PAIRLOSS_REQUIRE holds {name}, but {reason}", pytrace=False)
    pytest.skip(f"{name}: {reason}")
