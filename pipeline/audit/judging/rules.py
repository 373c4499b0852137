"""The rules of a gate: read from YAML or JSON, checked against rules.schema.json, errors told with their line."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import yaml
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from jsonschema import Draft202012Validator, ValidationError

from pipeline.errors import UsageError, nearest
from transforms.storage.errors import READ_ERRORS

Level = Literal["fail", "warn"]

# With fewer pairs than this, a statistic says little.
LEAST_PAIRS = 30

# Where in a document: keys and positions from the root.
Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Rule:
    """One rule; what its kind does not know is left at its default. See rules.schema.json.

    Attributes:
        rule: its kind.
        line: where it begins in its file, from 1.
        column: of the metrics.
        quantile: which one.
        distance: name of a field of `Drift`.
        min: least value.
        max: largest value.
        allowed: fraction of the pairs that may lie outside of `min` and `max`, for `pair_limit`.
        level: what a violation means.
        least_pairs: with fewer it is skipped.
        each_slice: whether it holds for every slice as well.
    """

    rule: str
    line: int = 0
    column: str = ""
    quantile: float = math.nan
    distance: str = ""
    min: float = -math.inf
    max: float = math.inf
    allowed: float = 0.0
    level: Level = "fail"
    least_pairs: int = LEAST_PAIRS
    each_slice: bool = False


class _Loader(yaml.SafeLoader):
    """Of YAML 1.1, where `1e-3` is a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), [*"-+0123456789"]
)


def read_rules(path: str) -> tuple[Rule, ...]:
    """The rules in a file, local or `gs://`.

    Raises:
        UsageError: it cannot be read, or something in it is wrong; the message names the line.
    """
    try:
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            text = file.read().decode()
    except (*READ_ERRORS, ValueError) as error:
        raise UsageError(f"cannot read the rules {path}: {error}") from error
    return parse_rules(text, path)


def parse_rules(text: str, name: str) -> tuple[Rule, ...]:
    """The rules in a text.

    Args:
        text: YAML, or JSON, which is YAML but for tabs.
        name: of the file, for messages.

    Raises:
        UsageError: something is wrong; the message names the line.
    """
    try:
        document, lines = _load(text.replace("\t", " ") if name.endswith(".json") else text)
        _validate(document, lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UsageError(f"{name}:{mark.line + 1 if mark else 1}: {error.problem}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UsageError(f"{name}:{line}: {error.reason} (character {error.position})") from error
    except _WrongRuleError as error:
        raise UsageError(f"{name}:{error.line}: {error}") from error
    return tuple(Rule(**entry, line=lines["rules", number]) for number, entry in enumerate(document["rules"]))


def rules_schema() -> dict[str, Any]:
    """The JSON Schema of a rules file."""
    text = resources.files("pipeline.audit.judging").joinpath("rules.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


class _WrongRuleError(Exception):
    def __init__(self, message: str, line: int):
        super().__init__(message)
        self.line = line


def _load(text: str) -> tuple[Any, dict[Place, int]]:
    """The document, and the line of each place in it."""
    loader = _Loader(text)
    node = loader.get_single_node()
    if node is None:
        raise _WrongRuleError("the file is empty; it needs the key 'rules'", 1)
    lines: dict[Place, int] = {}
    for place, inner in _walk(node, (), frozenset()):
        if place in lines:
            raise _WrongRuleError(f"{place[-1]!r} is given twice", inner.start_mark.line + 1)
        lines[place] = inner.start_mark.line + 1
    return loader.construct_document(node), lines


def _walk(node: yaml.Node, place: Place, above: frozenset[int]) -> Iterator[tuple[Place, yaml.Node]]:
    """Every node with its place. A key's line is that of its value, which may begin below it; so the key is given."""
    if id(node) in above:
        raise _WrongRuleError("an alias stands within what it refers to", node.start_mark.line + 1)
    above |= {id(node)}
    if not place:
        yield place, node
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, str(key.value))
            yield inner, key
            yield from _walk(value, inner, above)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            inner = (*place, number)
            yield inner, value
            yield from _walk(value, inner, above)


def _validate(document: Any, lines: Mapping[Place, int]) -> None:
    errors = Draft202012Validator(rules_schema()).iter_errors(document)
    # A key that is wrong explains one that is missing.
    found = [(error.validator != "additionalProperties", _described(error, lines)) for error in errors]
    if found:
        raise min(found, key=lambda entry: (entry[1].line, entry[0]))[1]
    for number, rule in enumerate(document["rules"]):
        for key, value in rule.items():
            # JSON Schema knows neither; and no value would ever violate a limit that is not a number.
            if isinstance(value, float) and not math.isfinite(value):
                raise _WrongRuleError(f"{key} is {value}, not a finite number", _line(lines, ("rules", number, key)))


def _described(error: ValidationError, lines: Mapping[Place, int]) -> _WrongRuleError:
    """An error of the schema in the words of a rules file."""
    place = tuple(error.absolute_path)
    where = f"rule {error.instance['rule']!r}" if isinstance(error.instance, dict) and "rule" in error.instance else ""
    match error.validator:
        case "additionalProperties":
            known = list(error.schema["properties"])
            wrong = next(key for key in error.instance if key not in known)
            hint = nearest(str(wrong), known)
            message = f"{where or 'the file'} has no key {wrong!r}.{hint} Its keys: {', '.join(known)}"
            return _WrongRuleError(message, _line(lines, (*place, str(wrong))))
        case "required":
            missing = next(key for key in error.validator_value if key not in error.instance)
            return _WrongRuleError(f"{where or 'this'} needs the key {missing!r}", _line(lines, place))
        case "anyOf":
            return _WrongRuleError(f"{where} needs 'min' or 'max'", _line(lines, place))
        case "enum":
            hint = nearest(str(error.instance), error.validator_value)
            choices = ", ".join(error.validator_value)
            message = f"{place[-1]} {error.instance!r} is unknown.{hint} Choose from {choices}"
        case _:
            message = f"{place[-1] if place else 'the file'}: {error.message}"
    return _WrongRuleError(message, _line(lines, place))


def _line(lines: Mapping[Place, int], place: Place) -> int:
    """The line of a place, or of what it lies in: what a merge key `<<` brings has no place of its own."""
    while place not in lines:
        place = place[:-1]
    return lines[place]
