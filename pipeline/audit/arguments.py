"""The command lines of `python -m pipeline.audit VERB`."""

import argparse
from typing import NoReturn

from pipeline.errors import UsageError


class VerbParser(argparse.ArgumentParser):
    """The parser of a verb. What is wrong it raises as `UsageError`."""

    def __init__(self, verb: str, description: str):
        super().__init__(prog=f"python -m pipeline.audit {verb}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. See {self.prog} --help")


def path(text: str) -> str:
    """A path, without a slash at its end.

    Raises:
        argparse.ArgumentTypeError: it is empty, as of a variable that is not set.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is no path")
    return text.rstrip("/") or text
