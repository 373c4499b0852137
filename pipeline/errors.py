"""The error that ends a command with one message, the exit codes, and the hint at a misspelt word."""

import difflib
from collections.abc import Iterable

OK, CRASH, USAGE, NOTHING_SCORED, INCOMPLETE = 0, 1, 2, 3, 4


class UsageError(Exception):
    """The user asked for what cannot be: one message says what was given, what is allowed and what helps."""


def nearest(word: str, words: Iterable[str], prefix: str = "") -> str:
    """A hint at the word that was probably meant, or nothing: ` Did you mean 'lpips_vgg'?`."""
    found = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f" Did you mean {prefix + found[0]!r}?" if found else ""
