"""Rules files: YAML and JSON, and one clear message for what is wrong, with its line."""

import json
import math
from dataclasses import fields

import pytest
from jsonschema import Draft202012Validator

from pipeline.audit.judging.rules import LEAST_PAIRS, Rule, parse_rules, read_rules, rules_schema
from pipeline.errors import UsageError

ALL_KINDS = """
rules:
  - {rule: failure_fraction, max: 1e-3}
  - {rule: files_failed, max: 0}
  - {rule: pairs, min: 10, max: 20, level: warn}
  - {rule: count_ratio, min: 0.9, each_slice: true}
  - {rule: quantile, column: mae, quantile: 0.95, max: 0.1, least_pairs: 5}
  - {rule: mean, column: mae, min: -1}
  - {rule: nan_fraction, column: mae, max: 0}
  - {rule: pair_limit, column: mae, max: 0.2, allowed: .01}
  - {rule: drift, column: mae, distance: ks, max: 0.1}
"""
EXPECTED = (
    Rule("failure_fraction", 3, max=0.001),
    Rule("files_failed", 4, max=0),
    Rule("pairs", 5, min=10, max=20, level="warn"),
    Rule("count_ratio", 6, min=0.9, each_slice=True),
    Rule("quantile", 7, column="mae", quantile=0.95, max=0.1, least_pairs=5),
    Rule("mean", 8, column="mae", min=-1),
    Rule("nan_fraction", 9, column="mae", max=0),
    Rule("pair_limit", 10, column="mae", max=0.2, allowed=0.01),
    Rule("drift", 11, column="mae", distance="ks", max=0.1),
)


def comparable(rules):
    """NaN equals nothing, not even the NaN of a rule without a quantile."""
    return [
        {f.name: None if getattr(r, f.name) != getattr(r, f.name) else getattr(r, f.name) for f in fields(r)}
        for r in rules
    ]


def test_every_kind():
    assert comparable(parse_rules(ALL_KINDS, "rules.yaml")) == comparable(EXPECTED)


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json(tmp_path, indent):
    document = {"rules": [{"rule": "pairs", "min": 3}, {"rule": "drift", "column": "a", "distance": "ks", "max": 0.5}]}
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(document, indent=indent))
    assert [(rule.rule, rule.min, rule.max) for rule in read_rules(str(path))] == [
        ("pairs", 3, math.inf),
        ("drift", -math.inf, 0.5),
    ]


def test_merge_keys():
    text = "rules:\n - &mae {rule: mean, column: mae, max: 1}\n - {<<: *mae, column: mse}\n"
    assert [(rule.column, rule.max, rule.line) for rule in parse_rules(text, "r")] == [("mae", 1, 2), ("mse", 1, 3)]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("rules:\n - rule: pairs\n   min: 1\n   maks: 1", 4, "'pairs' has no key 'maks'. Did you mean 'max'?"),
        ("rules:\n - {rule: pairs, min: 1, column: mae}", 2, "rule 'pairs' has no key 'column'"),
        ("rulez: []", 1, "the file has no key 'rulez'. Did you mean 'rules'?"),
        ("rules:\n - {rule: maen, max: 1}", 2, "rule 'maen' is unknown. Did you mean 'mean'?"),
        ("rules:\n - rule: pairs\n   level: fial\n   min: 1", 3, "level 'fial' is unknown. Did you mean 'fail'?"),
        ("rules:\n - {rule: pairs, min: 1}\n - {rule: mean, max: 1}", 3, "rule 'mean' needs the key 'column'"),
        ("rules:\n - {max: 1}", 2, "needs the key 'rule'"),
        ("rules:\n - {rule: mean, column: mae}", 2, "rule 'mean' needs 'min' or 'max'"),
        ("rules:\n - {rule: pairs, min: many}", 2, "min: 'many' is not of type 'number'"),
        ("rules:\n - {rule: failure_fraction, max: 2}", 2, "max: 2 is greater than the maximum of 1"),
        ("rules:\n - {rule: pairs, min: .nan}", 2, "min is nan, not a finite number"),
        ("rules:\n - {rule: pairs, max: .inf}", 2, "max is inf, not a finite number"),
        ("rules:\n - {rule: pairs, min: 1, min: 2}", 2, "'min' is given twice"),
        ("rules:\n - {rule: pairs, min: 1, least_pairs: 3}", 2, "has no key 'least_pairs'"),
        ("rules: []", 1, "rules: [] should be non-empty"),
        ("rules:\n - {rule: pairs", 2, "expected ',' or '}'"),
        ("rules: &a [*a]", 1, "an alias stands within"),
        ("", 1, "the file is empty"),
        ("just text", 1, "is not of type 'object'"),
        ("rules:\n - 3", 2, "3 is not of type 'object'"),
        ("rules:\n - {rule: !!python/name:os.system x, min: 1}", 2, "could not determine a constructor"),
        ("rules: \x07", 1, "special characters are not allowed"),
    ],
)  # fmt: skip
def test_mistakes(text, line, message):
    with pytest.raises(UsageError) as caught:
        parse_rules(text, "rules.yaml")
    found = str(caught.value)
    assert message in found
    assert found.startswith(f"rules.yaml:{line}: ")
    assert "\n" not in found


def test_no_file(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read the rules .*none\.yaml"):
        read_rules(str(tmp_path / "none.yaml"))


def test_schema_is_one_and_agrees_with_the_code():
    schema = rules_schema()
    Draft202012Validator.check_schema(schema)
    keys = {key for kind in schema["$defs"].values() for key in kind.get("properties", {})}
    assert keys == {field.name for field in fields(Rule)} - {"line"}
    assert schema["$defs"]["least_pairs"]["default"] == LEAST_PAIRS
