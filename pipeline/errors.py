"""The error that ends a command with one message, the exit codes, and the hint at a misspelt word."""

import difflib
import re
from collections.abc import Iterable, Sequence

from pipeline.console.numbers import printable

OK, CRASH, USAGE, NOTHING_SCORED, INCOMPLETE = 0, 1, 2, 3, 4


_WORDS = "secret|token|password|passwd|credential|signature|connection_string|(?:access|api|account|private)_?key"
_SECRET = rf"[\w-]*(?:{_WORDS})[\w-]*"
_SECRET_FLAG = re.compile(rf"--{_SECRET}", re.IGNORECASE)
_MASKED = "***"
_MASKS = (
    (re.compile(rf"(--{_SECRET}[= ])\S+", re.IGNORECASE), rf"\1{_MASKED}"),
    (re.compile(rf"""(["']?{_SECRET}["']?\s*:\s*)("[^"]*"|'[^']*')""", re.IGNORECASE), rf'\1"{_MASKED}"'),
    (re.compile(r"(\w://)[^/\s@]+@"), rf"\1{_MASKED}@"),
    (re.compile(r"(\w://[^\s?]*\?)\w+=[^\s'\"]*"), rf"\1{_MASKED}"),
    (re.compile(r"(\b(?:AccountKey|SharedAccessSignature)=)[^;\s]+", re.IGNORECASE), rf"\1{_MASKED}"),
)


def masked(text: str) -> str:
    """A text to write, without the secrets in flags and URLs."""
    for pattern, replacement in _MASKS:
        text = pattern.sub(replacement, text)
    return text


def for_terminal(text: str) -> str:
    """A text to print, without secrets, and with characters escaped by which a file's name could command a terminal."""
    return "\n".join(map(printable, masked(text).split("\n")))


def masked_flags(flags: Sequence[str]) -> tuple[str, ...]:
    """Flags to write, with `***` for what is secret."""
    before = ("", *flags)
    return tuple(
        _MASKED if _SECRET_FLAG.fullmatch(earlier) and not flag.startswith("--") else masked(flag)
        for earlier, flag in zip(before, flags, strict=False)
    )


class UsageError(Exception):
    """The request is wrong. The message says what was given, without secrets, what is allowed and what helps."""

    def __str__(self) -> str:
        return for_terminal(super().__str__())


def nearest(word: str, words: Iterable[str], prefix: str = "") -> str:
    """A hint at the word that was probably meant, or nothing: ` Did you mean 'lpips_vgg'?`."""
    found = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f" Did you mean {prefix + found[0]!r}?" if found else ""
