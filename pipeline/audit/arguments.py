"""The command lines of `pairloss audit VERB`."""

import argparse

from pipeline.flags import Parser


class VerbParser(argparse.ArgumentParser):
    """The parser of a verb. It raises mistakes as `UsageError`."""

    def __init__(self, verb: str, description: str):
        super().__init__(prog=f"pairloss audit {verb}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. See {self.prog} --help")


def path(text: str) -> str:
    """A path without its final slash.

    Raises:
        argparse.ArgumentTypeError: it is empty, for example because a shell variable is not set.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not a path")
    return text.rstrip("/") or text
