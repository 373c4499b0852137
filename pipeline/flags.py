"""Make flags from settings: a dataclass field whose metadata holds a help text is a flag; `setting` makes one.

The metadata of such a field:
    help: what the flag does.
    group: its group in `--help`. A field without help that has a group holds a settings dataclass, all of whose flags
        are in that group.
    flag: the name of the flag, if it is not the field's.
    positive: True for a whole number of at least 1.
    identity: False for a setting that does not change a run's rows; a text is its name in run.json.
    flag_default: the flag's default, if it is not the field's.
    choices: the allowed values, or a function that gives them when the parser is made, for a table that may grow.
    metavar, type, nargs, action: go to `argparse` as they are.
"""

import argparse
import dataclasses
import math
import os
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from pipeline.errors import UsageError

Settings = TypeVar("Settings")
_OWN_KEYS = {"help", "group", "flag", "flag_default", "positive", "identity"}


class Parser(argparse.ArgumentParser):
    """The parser of a command. It raises `UsageError` for a wrong argument."""

    def __init__(self, prog: str, description: str, epilog: str | None = None):
        super().__init__(prog=prog, description=description, epilog=epilog, allow_abbrev=False)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        for argument in args or ():
            if re.match(r"[\u2010-\u2015\u2212]", argument):
                raise UsageError(f"{argument!r} begins with the dash of a text, not of a flag; write -- before it")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. See {self.prog} --help")


@dataclass(frozen=True)
class Flag:
    """A field that is a flag.

    Attributes:
        name: of the flag, without its dashes.
        group: title of its group.
        field: the field, with its metadata.
        optional: whether its dataclass may be absent as a whole, so that the flag itself has no default.
    """

    name: str
    group: str
    field: "dataclasses.Field[Any]"
    optional: bool


def flags_of(settings: type, group: str = "", optional: bool = False) -> Iterator[Flag]:
    """Yield the flags of a settings dataclass and of the dataclasses within it, in the order of their fields."""
    for field in dataclasses.fields(settings):
        title = field.metadata.get("group", group)
        kind, may_be_none = _without_none(field.type)
        if _has_flags(field):
            yield from flags_of(kind, title, may_be_none)
        elif "help" in field.metadata:
            yield Flag(field.metadata.get("flag", field.name), title, field, optional)


def add_flags(parser: argparse.ArgumentParser, groups: Sequence[str], *settings: type) -> None:
    """Add the flags of settings dataclasses to a parser.

    Args:
        parser: gets a group of arguments for each group of flags.
        groups: titles that come first, in this order; the others follow as the flags name them.
        settings: the dataclasses.
    """
    flags = [flag for cls in settings for flag in flags_of(cls)]
    for title in dict.fromkeys((*groups, *(flag.group for flag in flags))):
        group = parser.add_argument_group(title)
        for flag in flags:
            if flag.group == title:
                _add(group, flag)


def parse_given(parser: argparse.ArgumentParser, argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Parse the arguments.

    Returns:
        the values by flag, None for a flag that was not given, and the arguments that the parser does not know.
    """
    absent = argparse.Namespace(**{action.dest: None for action in parser._actions})
    given, unknown = parser.parse_known_args(list(argv), absent)
    return vars(given), unknown


def build(settings: type[Settings], given: Mapping[str, Any], **resolved: Any) -> Settings:
    """Make a settings dataclass, and those within it, from the values that `parse_given` returns.

    Args:
        settings: the dataclass; a flag that was not given leaves its field's default alone.
        given: the values by flag.
        resolved: fields that follow from several flags.
    """
    values = dict(resolved)
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        if field.name in resolved:
            continue
        if _has_flags(field):
            values[field.name] = build(field.type, given)  # type: ignore[arg-type]
        elif "help" in field.metadata and (value := given[field.metadata.get("flag", field.name)]) is not None:
            values[field.name] = value
    return settings(**values)


def _add(group: Any, flag: Flag) -> None:
    field, metadata = flag.field, dict(flag.field.metadata)
    kind, _ = _without_none(field.type)
    required = field.default is dataclasses.MISSING
    default = metadata.get("flag_default", None if required or flag.optional else field.default)
    arguments = {
        "default": default if default != () else "",
        "required": required,
        # Templates and schedulers can only pass --flag=true.
        **({"nargs": "?", "const": True, "metavar": "true|false"} if kind is bool else {}),
        "type": positive if metadata.get("positive") else _PARSERS[kind],
        **{key: value for key, value in metadata.items() if key not in _OWN_KEYS},
    }
    if callable(arguments.get("choices")):
        arguments["choices"] = arguments["choices"]()
    shown = field.default if flag.optional else arguments["default"]
    help = metadata["help"] if shown in (None, "") or shown is False else f"{metadata['help']} (default: {shown})"
    group.add_argument(f"--{flag.name}", help=help, **arguments)


def _has_flags(field: "dataclasses.Field[Any]") -> bool:
    """True if the field holds a settings dataclass, and False if it is a flag or neither."""
    return "group" in field.metadata and "help" not in field.metadata


def _without_none(annotation: Any) -> tuple[Any, bool]:
    """The type without its `| None`, and whether it had one."""
    types = typing.get_args(annotation)
    if type(None) not in types:
        return annotation, False
    (inner,) = (kind for kind in types if kind is not type(None))
    return inner, True


def names(text: str) -> tuple[str, ...]:
    """The names in a comma-separated list."""
    return tuple(name for name in re.split(r"\s*,\s*", text.strip()) if name)


def patterns(text: str) -> tuple[str, ...]:
    """The file patterns in a comma-separated list, at least one. Shells leave the `~` of `--input=~/x` alone.

    Commas in braces, and in a path or the directory of a pattern that exists, separate nothing.
    """
    if os.path.exists(text):
        return (text,)
    parts = [os.path.expanduser(part.strip()) for part in _split(text)]
    found: list[str] = []
    while parts:
        ends = [end for end in range(len(parts), 1, -1) if _exists(",".join(parts[:end]))] if "," in text else []
        end = max(ends, default=1)
        found += [pattern] if (pattern := ",".join(parts[:end])) else []
        parts = parts[end:]
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} names no file; give files or patterns such as 'pairs-*.parquet'")
    return tuple(found)


def _split(text: str) -> list[str]:
    """The parts between the commas that no pair of braces encloses."""
    outside = text
    while inner := re.search(r"\{[^{}]*\}", outside):
        outside = outside.replace(inner[0], "\0" * len(inner[0]))
    ends = [found.start() for found in re.finditer(",", outside)]
    return [text[start + 1 : end] for start, end in zip((-1, *ends), (*ends, len(text)), strict=True)]


def _exists(pattern: str) -> bool:
    """True if a pattern with a comma exists as a path, or if the directory it begins with has that comma and exists."""
    fixed = re.split(r"[*?\[{]", pattern)[0].rpartition("/")[0]
    return os.path.exists(pattern) or ("," in fixed and os.path.isdir(fixed))


def path(text: str) -> str:
    """A path, without a slash at its end, and with the directory that a `~` stands for.

    An empty one comes from a variable that is not set.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not a path; give a local, a gs:// or an s3:// one")
    return os.path.expanduser(text.rstrip("/") or text)


def accelerator(text: str) -> str:
    """A GPU, as Beam's resource hint describes it."""
    if text and not re.fullmatch(r"type:[a-z0-9-]+;count:[1-9][0-9]*(;[^;\s]+)*", text):
        example = "type:nvidia-tesla-t4;count:1;install-nvidia-driver:5xx"
        raise argparse.ArgumentTypeError(f"{text!r} does not describe an accelerator; write it like {example!r}")
    return text


def storage_size(text: str) -> str:
    """An amount of memory, as Beam's resource hint describes it."""
    if text and not re.fullmatch(r"[0-9]+(\.[0-9]+)?[KMGT]i?B", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount of memory; write it like 16GB")
    return text


def price(text: str) -> float:
    """A number above zero."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a price; give a number above 0, such as 0.35")
    return number


def positive(text: str) -> int:
    """A whole number of at least 1."""
    number = int(text) if text.isascii() and text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def _boolean(text: str) -> bool:
    values = {"true": True, "false": False, "1": True, "0": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return values[text.lower()]


_PARSERS: dict[Any, Callable[[str], Any]] = {str: str, int: int, float: float, bool: _boolean, tuple[str, ...]: names}
