"""The command lines of `pairloss audit VERB`."""

import argparse

from pipeline.flags import Parser


class VerbParser(Parser):
    """The parser of a verb. It raises `UsageError` for a wrong argument."""

    def __init__(self, verb: str, description: str):
        super().__init__(prog=f"pairloss audit {verb}", description=description)


def path(text: str) -> str:
    """A path, without a slash at its end.

    Raises:
        argparse.ArgumentTypeError: it is empty, as of a variable that is not set.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not a path")
    return text.rstrip("/") or text
