"""Tests that need what not every machine has: skipped aloud, or failed where `PAIRLOSS_REQUIRE` names it."""

import os
from typing import NoReturn

import pytest


def missing(name: str, reason: str) -> NoReturn:
    """Skip the test; fail it if the comma-separated `PAIRLOSS_REQUIRE` holds the name."""
    if name in os.environ.get("PAIRLOSS_REQUIRE", "").split(","):
        pytest.fail(f"PAIRLOSS_REQUIRE holds {name}, but {reason}", pytrace=False)
    pytest.skip(f"{name}: {reason}")
