"""Templates of file names: the wildcards or the `{fields}` of a path, and what they match in a name.

`*` and `?` stay inside a directory, `**` crosses directories, and `**/` also matches no directory. `{name}` matches
within one segment of a path, `{name:path}` across several; `{{` and `}}` stand for braces. What exists on the local
disk is taken as it is: see `fixed_part`.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import cached_property

from transforms.reading.fixed_path import fixed_part
from transforms.row_keys import CANDIDATE

# A directory as a template stands for its images and those below it.
IMAGE_NAME = r"\.(?i:png|apng|jpe?g|jpe|jfif|webp|bmp|dib|tiff?|gif|avif|pnm|ppm|pgm|pbm|npy|npz|hei[cf]|hif|jxl|dcm)"

# Names of each side that are tried for a suggestion.
_TRIED = 20
_NAMED = re.compile(r"(?P<name>[\w.-]+)=(?P<template>.+)", re.DOTALL)
_TOKEN = re.compile(r"(?P<brace>\{\{|\}\})|\{(?P<field>[A-Za-z_]\w*)(?P<path>:path)?\}|(?P<wild>\*\*/|\*\*|\*|\?)|[{}]")
# A NUL, which no path has, stands where the quantifier of the shortest match goes.
_WILD = {"**/": "(?:(.+\0)/)?\0", "**": "(.*\0)", "*": "([^/]*\0)", "?": "([^/])"}


@dataclass(frozen=True)
class Template:
    """A parsed template.

    Attributes:
        text: as it was given.
        prefix: the text before its first wildcard or field.
        fields: names of its fields, in order, each once.
        wildcards: number of its wildcards.
        depth: most directories below the prefix's; None: any number.
        expression: matches a path; fields and wildcards are as long as they can be.
        shortest: the same, but they are as short as they can be.
        candidate: the value of the field `candidate` in every path; empty: the template itself has it, or nothing has.
    """

    text: str
    prefix: str
    fields: tuple[str, ...]
    wildcards: int
    depth: int | None
    expression: str
    shortest: str
    candidate: str = ""

    # There may be a million paths, and looking up a compiled expression takes longer than matching one.
    @cached_property
    def _longest(self) -> re.Pattern[str]:
        return re.compile(self.expression, re.DOTALL)

    @cached_property
    def _shortest(self) -> re.Pattern[str]:
        return re.compile(self.shortest, re.DOTALL)

    def match(self, path: str) -> dict[str, str] | None:
        """`values` of a path, with its candidate. Raises ValueError as `values`."""
        values = self.values(path)
        return values if values is None or not self.candidate else {**values, CANDIDATE: self.candidate}

    def values(self, path: str) -> dict[str, str] | None:
        """The values of the fields in a path, or of the wildcards by number; None if the path does not match.

        Raises:
            ValueError: the fields could have other values as well.
        """
        found = self._longest.fullmatch(path)
        if not found:
            return None
        if not self.fields:
            return {str(number): text for number, text in enumerate(found.groups()) if text}
        values = found.groupdict()
        other = self._shortest.fullmatch(path)
        if other and other.groupdict() != values:
            readings = " or ".join(", ".join(f"{k}={v!r}" for k, v in d.items()) for d in (values, other.groupdict()))
            raise ValueError(
                f"{self.text!r} is ambiguous: {path!r} gives {readings}; put text that occurs in no field between them"
            )
        return values


def parse_templates(texts: Sequence[str]) -> list[Template]:
    """Parse the templates of one side; `NAME=TEMPLATE` with different names are those of candidates.

    One name alone is the beginning of a path, such as that of a Hive partition.

    Raises:
        ValueError: as `parse_template`, or only some templates have names.
    """
    named = [_NAMED.fullmatch(text) for text in texts]
    names = {found["name"] for found in named if found}
    if len(names) < 2:
        return [parse_template(text) for text in texts]
    if unnamed := [text for text, found in zip(texts, named, strict=True) if not found]:
        raise ValueError(f"{unnamed[0]!r} has no name, but others have; write NAME={unnamed[0]}")
    return [replace(parse_template(found["template"]), candidate=found["name"]) for found in named if found is not None]


def parse_template(text: str) -> Template:
    """Parse a template.

    Raises:
        ValueError: a brace has no partner, fields touch each other, or more than one crosses directories.
    """
    pieces: list[str] = []
    fields: dict[str, None] = {}
    prefix, wildcards, crossing, after_field = "", 0, 0, False

    def literal(part: str) -> None:
        nonlocal prefix, after_field
        if part:
            prefix += "" if fields or wildcards else part
            pieces.append(re.escape(part))
            after_field = False

    literal(fixed_part(text))
    position = len(prefix)
    for token in _TOKEN.finditer(text, position):
        literal(text[position : token.start()])
        position = token.end()
        if token["brace"]:
            literal(token["brace"][0])
        elif token["field"]:
            name = token["field"]
            if after_field:
                raise ValueError(f"{text!r} is ambiguous: {{{name}}} follows another field; put text between them")
            crossing += bool(token["path"])
            kind = ".+" if token["path"] else "[^/]+"
            pieces.append(f"(?P={name})" if name in fields else f"(?P<{name}>{kind}\0)")
            fields[name] = None
            after_field = True
        elif token["wild"]:
            pieces.append(_WILD[token["wild"]])
            wildcards += 1
            after_field = False
        else:
            raise ValueError(
                f"{text!r} has a {token[0]!r} that belongs to no field; write {{name}}, or {token[0] * 2} for a brace"
            )
    literal(text[position:])
    if crossing > 1:
        raise ValueError(f"{text!r} has {crossing} fields with :path; one is possible")
    deep = crossing or "**" in text
    depth = None if deep else text[len(prefix) :].count("/") if fields or wildcards else 0
    expression = "".join(pieces)
    return Template(
        text,
        prefix,
        tuple(fields),
        wildcards,
        depth,
        _with_quantifier(expression, ""),
        _with_quantifier(expression, "?"),
    )


def directory_template(path: str) -> Template:
    """The template of the images in a directory and below it: the wildcard is the path without its extension."""
    prefix = f"{path.rstrip('/')}/"
    # A name that begins with a dot is hidden.
    expression = rf"{re.escape(prefix)}((?:(?!\.)[^/]+/)*(?!\.)[^/]+){IMAGE_NAME}"
    return Template(path, prefix, (), 1, None, expression, expression)


def check_templates(
    generated: Sequence[Template], target: Sequence[Template], flag: str = "--target"
) -> tuple[str, ...]:
    """Check that the templates of both sides can be joined.

    Args:
        generated: of the generated images.
        target: of their targets, or of their masks.
        flag: that gave the targets.

    Returns:
        the fields that only the generated images have.

    Raises:
        ValueError: one line that says which template does not fit.
    """
    for side, templates in (("--generated", generated), (flag, target)):
        for template in templates:
            if set(template.fields) != set(templates[0].fields):
                raise ValueError(f"{side}: {templates[0].text!r} and {template.text!r} have different fields")
    ours, theirs = generated[0].fields, target[0].fields
    if CANDIDATE in theirs or target[0].candidate:
        raise ValueError(f"{flag} has candidates, but only generated images may; name its field otherwise")
    if CANDIDATE in ours and generated[0].candidate:
        raise ValueError(f"--generated has both names, such as {generated[0].candidate}=, and {{candidate}}; drop one")
    if missing := [name for name in theirs if name not in ours]:
        raise ValueError(f"{flag} has {_braced(missing)}, which --generated={generated[0].text!r} lacks; add it there")
    for template in target if ours and not theirs else ():
        if template.wildcards:
            raise ValueError(
                f"--generated has {_braced(ours)}, but {flag}={template.text!r} has wildcards; write "
                f"{{{ours[0]}}} in both"
            )
    return (*(name for name in ours if name not in theirs), *([CANDIDATE] if generated[0].candidate else []))


def suggest(generated: Sequence[str], target: Sequence[str]) -> str:
    """The templates that would pair most of these paths; empty if none pairs any."""
    found: Counter[tuple[str, str]] = Counter()
    for ours in generated[:_TRIED]:
        for theirs in target[:_TRIED]:
            (first, name, ending), (other_first, other_name, other_ending) = _split(ours), _split(theirs)
            common = SequenceMatcher(None, name, other_name, autojunk=False).find_longest_match()
            if common.size:
                before, after = name[: common.a], name[common.a + common.size :]
                other_before, other_after = other_name[: common.b], other_name[common.b + common.size :]
                left = f"{_escaped(first + before)}{{id}}{_escaped(after + ending)}"
                right = f"{_escaped(other_first + other_before)}{{id}}{_escaped(other_after + other_ending)}"
                found[left, right] += 1
    if not found:
        return ""
    (left, right), pairs = found.most_common(1)[0]
    few = min(len(generated), len(target), 2)
    return f"--generated={left!r} --target={right!r}" if pairs >= few else ""


def _split(path: str) -> tuple[str, str, str]:
    """The directory, the stem and the extension of a path."""
    folder, slash, name = path.rpartition("/")
    stem, dot, ending = name.rpartition(".")
    return (folder + slash, stem, dot + ending) if stem else (folder + slash, name, "")


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _braced(names: Sequence[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)


def _with_quantifier(expression: str, quantifier: str) -> str:
    return expression.replace("\0", quantifier)
