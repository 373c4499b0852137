"""Read the rules of a gate from YAML or JSON, and report each mistake with its line.

`python -m pipeline.audit.judging.rules` writes rules.schema.json, with which editors check and complete a rules file.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, get_origin, get_type_hints

import yaml
from jsonschema import Draft202012Validator, ValidationError

from pipeline.audit.judging.rule import Rule
from pipeline.audit.judging.rule_kinds import RULE_KINDS
from pipeline.errors import UsageError, nearest
from transforms.storage.errors import READ_ERRORS
from transforms.storage.whole_files import read_file

SCHEMA_FILE = Path(__file__).with_name("rules.schema.json")

# Aliases unfold: a few hundred bytes of YAML can hold billions of values.
_MOST_VALUES = 100_000
_MOST_LEVELS = 20
_MOST_CHARACTERS = 300

# A path in a document: keys and positions from the root.
Place = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """Reads `1e-3` as a number, which YAML 1.1 takes for text, and names the line of a value that it cannot read."""

    _level = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self._level > _MOST_LEVELS:
            line = self.peek_event().start_mark.line + 1
            raise _WrongRuleError("lists are nested too deeply; rules need no more than two levels", line)
        self._level += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._level -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as error:
            problem = f"{str(node.value)[:40]!r} cannot be read as {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark) from error


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), [*"-+0123456789"]
)


def read_rules(path: str) -> tuple[Rule, ...]:
    """The rules in a file, local or in a store.

    Raises:
        UsageError: it cannot be read, or something in it is wrong; the message names the line.
    """
    try:
        text = read_file(path).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"cannot read the rules {path}: {error}; save the file as UTF-8") from error
    except (*READ_ERRORS, ValueError) as error:
        raise UsageError(f"cannot read the rules {path}: {error}") from error
    return parse_rules(text, path)


def parse_rules(text: str, name: str) -> tuple[Rule, ...]:
    """The rules in a text.

    Args:
        text: YAML or JSON. JSON is YAML, except for tabs.
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
    return tuple(_rule(entry, lines["rules", number]) for number, entry in enumerate(document["rules"]))


def rules_schema() -> dict[str, Any]:
    """The JSON Schema of a rules file."""
    chosen = [
        {"if": {"required": ["rule"], "properties": {"rule": {"const": name}}}, "then": _kind_schema(kind)}
        for name, kind in RULE_KINDS.items()
    ]
    known = {"rule": {"enum": list(RULE_KINDS)}}
    rule = {"type": "object", "required": ["rule"], "properties": known, "allOf": chosen}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Rules of a PairLoss gate",
        "type": "object",
        "required": ["rules"],
        "additionalProperties": False,
        "properties": {"rules": {"type": "array", "minItems": 1, "items": rule}},
    }


def write_schema() -> None:
    """Write rules.schema.json from the kinds of rules."""
    SCHEMA_FILE.write_text(json.dumps(rules_schema(), indent=2) + "\n", encoding="utf-8")


class _WrongRuleError(Exception):
    def __init__(self, message: str, line: int):
        super().__init__(message if len(message) <= _MOST_CHARACTERS else f"{message[:_MOST_CHARACTERS]}…")
        self.line = line


def _rule(entry: Mapping[str, Any], line: int) -> Rule:
    keys = {name: value for name, value in entry.items() if name != "rule"}
    return RULE_KINDS[entry["rule"]](line=line, **keys)


def _kind_schema(kind: type[Rule]) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    keys = {entry.name: entry.default for entry in fields(kind) if get_origin(hints[entry.name]) is Annotated}
    # An infinite limit means that there is none.
    shown = {name: {"default": value} for name, value in keys.items() if value not in (MISSING, -math.inf, math.inf)}
    either = {"anyOf": [{"required": ["min"]}, {"required": ["max"]}]} if {"min", "max"} <= keys.keys() else {}
    return {
        "description": kind.__doc__,
        "required": [name for name, default in keys.items() if default is MISSING],
        **either,
        "additionalProperties": False,
        "properties": {"rule": True} | {name: hints[name].__metadata__[0] | shown.get(name, {}) for name in keys},
    }


def _load(text: str) -> tuple[Any, dict[Place, int]]:
    """The document, and the line of each place in it."""
    loader = _Loader(text)
    node = loader.get_single_node()
    if node is None:
        raise _WrongRuleError("the file is empty; it needs the key 'rules'", 1)
    lines: dict[Place, int] = {}
    for place, inner in _walk(node, (), frozenset()):
        line = inner.start_mark.line + 1
        if place in lines:
            raise _WrongRuleError(f"{place[-1]!r} is given twice", line)
        if len(lines) == _MOST_VALUES:
            raise _WrongRuleError(f"the file holds more than {_MOST_VALUES:,} values", line)
        lines[place] = line
    return loader.construct_document(node), lines


def _walk(node: yaml.Node, place: Place, above: frozenset[int]) -> Iterator[tuple[Place, yaml.Node]]:
    """Every node with its place. A value may begin below its key, so the key's node stands for both."""
    if id(node) in above:
        raise _WrongRuleError("an alias refers to a list or mapping that contains it", node.start_mark.line + 1)
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
    # A misspelt key explains why another one is missing, so it comes first.
    found = [(error.validator != "additionalProperties", _described(error, lines)) for error in errors]
    if found:
        raise min(found, key=lambda entry: (entry[1].line, entry[0]))[1]
    for number, rule in enumerate(document["rules"]):
        for key, value in rule.items():
            # JSON Schema lets these pass, but no value would ever violate a limit of NaN.
            if isinstance(value, int | float) and not abs(value) < math.inf:
                raise _WrongRuleError(f"{key} is {value}, not a finite number", _line(lines, ("rules", number, key)))
            if isinstance(value, int) and abs(value) > 2**63:
                raise _WrongRuleError(f"{key} is too large a number", _line(lines, ("rules", number, key)))
        if (low := rule.get("min", -math.inf)) > (high := rule.get("max", math.inf)):
            message = f"min is {low}, above max, {high}: no value could pass; exchange them"
            raise _WrongRuleError(message, _line(lines, ("rules", number, "min")))


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
    """The line of a place, or of the nearest one around it: a key from a merge `<<` has no line of its own."""
    while place not in lines:
        place = place[:-1]
    return lines[place]


if __name__ == "__main__":
    write_schema()
