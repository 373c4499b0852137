"""The names of the package, and what importing it imports."""

import json
import subprocess
import sys

import pytest

import pairloss
import pipeline

HEAVY = ("apache_beam", "keras", "pyarrow", "tensorflow")
CODE = f"""
import json, sys
import pairloss
heavy = [name for name in {HEAVY} if name in sys.modules]
pairloss.LOSSES, pairloss.Plan, pairloss.parse_objective, dir(pairloss)
heavy += [name for name in ("apache_beam", "keras", "tensorflow") if name in sys.modules]
print(json.dumps(heavy))
"""


def python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_it_is_light():
    assert json.loads(python("-c", CODE).stdout) == []


@pytest.mark.parametrize("name", pairloss.__all__)
def test_every_name_is_there(name):
    assert getattr(pairloss, name) is not None
    assert name in dir(pairloss)


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="module 'pairloss' has no attribute 'scores'; it has LOSSES, "):
        pairloss.scores  # noqa: B018


def test_version():
    assert pairloss.__version__ == pipeline.__version__


def test_as_a_command():
    helped, wrong = python("-m", "pairloss", "--help"), python("-m", "pairloss", "scores")
    assert (helped.returncode, wrong.returncode) == (0, 2)
    assert helped.stdout.startswith("usage: pairloss COMMAND")
