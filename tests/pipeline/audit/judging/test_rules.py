"""Rules files: YAML and JSON, and one clear message for what is wrong, with its line."""

import json
import math
from dataclasses import dataclass

import pytest
from jsonschema import Draft202012Validator
from support.audited import run_of, summarized

from pipeline.audit.judging.rule import Fraction, Measured, NonNegative, Rule, Scope
from pipeline.audit.judging.rule_kinds import (
    RULE_KINDS,
    CountRatio,
    DriftLimit,
    DuplicateIds,
    FailureFraction,
    FilesFailed,
    Mean,
    NanFraction,
    PairLimit,
    Pairs,
    Quantile,
)
from pipeline.audit.judging.rules import SCHEMA_FILE, parse_rules, read_rules, rules_schema, write_schema
from pipeline.audit.judging.verdict import judge
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
  - {rule: duplicate_ids, max: 0}
"""
EXPECTED = (
    FailureFraction(line=3, max=0.001),
    FilesFailed(line=4, max=0),
    Pairs(line=5, min=10, max=20, level="warn"),
    CountRatio(line=6, min=0.9, each_slice=True),
    Quantile(line=7, column="mae", quantile=0.95, max=0.1, least_pairs=5),
    Mean(line=8, column="mae", min=-1),
    NanFraction(line=9, column="mae", max=0),
    PairLimit(line=10, column="mae", max=0.2, allowed=0.01),
    DriftLimit(line=11, column="mae", distance="ks", max=0.1),
    DuplicateIds(line=12, max=0),
)


def test_every_kind():
    assert parse_rules(ALL_KINDS, "rules.yaml") == EXPECTED
    assert {type(rule) for rule in EXPECTED} == set(RULE_KINDS.values())


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json(tmp_path, indent):
    document = {"rules": [{"rule": "pairs", "min": 3}, {"rule": "drift", "column": "a", "distance": "ks", "max": 0.5}]}
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(document, indent=indent))
    assert [(rule.kind, rule.min, rule.max) for rule in read_rules(str(path))] == [
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
        ("rules:\n - rule: pairs\n   max: 3\n   min: 4", 4, "min is 4, above max, 3: no value could pass"),
        ("rules:\n - {rule: pairs, min: many}", 2, "min: 'many' is not of type 'number'"),
        ("rules:\n - {rule: failure_fraction, max: 2}", 2, "max: 2 is greater than the maximum of 1"),
        ("rules:\n - {rule: pairs, min: .nan}", 2, "min is nan, not a finite number"),
        ("rules:\n - {rule: pairs, max: .inf}", 2, "max is inf, not a finite number"),
        ("rules:\n - {rule: pairs, min: 1, min: 2}", 2, "'min' is given twice"),
        ("rules:\n - {rule: pairs, min: 1, least_pairs: 3}", 2, "has no key 'least_pairs'"),
        ("rules: []", 1, "rules: [] should be non-empty"),
        ("rules:\n - {rule: pairs", 2, "expected ',' or '}'"),
        ("rules: &a [*a]", 1, "an alias refers to a list or mapping that contains it"),
        ("", 1, "the file is empty"),
        ("just text", 1, "is not of type 'object'"),
        ("rules:\n - 3", 2, "3 is not of type 'object'"),
        ("rules:\n - {rule: !!python/name:os.system x, min: 1}", 2, "could not determine a constructor"),
        ("rules: \x07", 1, "special characters are not allowed"),
        ("rules:\n - {rule: mean, column: 2026-99-99, max: 1}", 2, "'2026-99-99' cannot be read as timestamp"),
        ("rules:\n - {rule: pairs, min: !!bool maybe}", 2, "'maybe' cannot be read as bool"),
        ("rules:\n - {rule: pairs, min: !!float abc}", 2, "'abc' cannot be read as float"),
        ("rules:\n - {rule: pairs, min: !!int abc}", 2, "'abc' cannot be read as int"),
        ("rules:\n - {rule: pairs, min: !!timestamp abc}", 2, "'abc' cannot be read as timestamp"),
        ("rules:\n - {rule: pairs, min: 0x_}", 2, "'0x_' cannot be read as int"),
        ("rules:\n - {rule: pairs, min: " + "9" * 5000 + "}", 2, "cannot be read as int"),
        ("rules:\n - {rule: pairs, min: " + "9" * 400 + "}", 2, "min is too large a number"),
        ("rules:\n - {rule: pairs, min: 1e400}", 2, "min is inf, not a finite number"),
    ],
)  # fmt: skip
def test_mistakes(text, line, message):
    with pytest.raises(UsageError) as caught:
        parse_rules(text, "rules.yaml")
    found = str(caught.value)
    assert message in found
    assert found.startswith(f"rules.yaml:{line}: ")
    assert "\n" not in found


@pytest.mark.parametrize("text", ["[" * 20_000, "rules: " + "[" * 900 + "]" * 900], ids=["open", "closed"])
def test_deep_nesting(text):
    with pytest.raises(UsageError, match=r"rules\.yaml:1: lists are nested too deeply"):
        parse_rules(text, "rules.yaml")


def test_a_few_bytes_that_unfold_to_billions_of_values():
    aliases = "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    with pytest.raises(UsageError, match=r"rules\.yaml:1: the file holds more than 100,000 values"):
        parse_rules(f"a: &a [{','.join('x' * 10)}]\n{aliases}rules: *i\n", "rules.yaml")


def test_a_file_in_another_encoding(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text("rules: []", encoding="utf-16")
    with pytest.raises(UsageError, match=r"cannot read the rules .*rules\.yaml: .*save the file as UTF-8"):
        read_rules(str(path))


def test_no_file(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read the rules .*none\.yaml"):
        read_rules(str(tmp_path / "none.yaml"))


class TestSchema:
    def test_the_file_is_the_generated_one(self, monkeypatch, tmp_path):
        monkeypatch.setattr("pipeline.audit.judging.rules.SCHEMA_FILE", tmp_path / "schema.json")
        write_schema()
        assert SCHEMA_FILE.read_text() == (tmp_path / "schema.json").read_text(), (
            "run python -m pipeline.audit.judging.rules"
        )

    def test_accepts_every_kind(self):
        Draft202012Validator.check_schema(rules_schema())
        for name in RULE_KINDS:
            assert f"{{rule: {name}," in ALL_KINDS


@dataclass(frozen=True, kw_only=True)
class SpareRecords(Rule):
    """Records that were listed, but not scored."""

    kind = "spare_records"
    max: NonNegative
    tolerance: Fraction = 0

    def measure(self, scope: Scope) -> Measured:
        return Measured(scope.run.listed - scope.run.scored, scope.run.listed)


class TestANewKindIsOneClass:
    @pytest.fixture(autouse=True)
    def known(self, monkeypatch):
        monkeypatch.setitem(RULE_KINDS, SpareRecords.kind, SpareRecords)

    def test_is_read_and_judged(self):
        rules = parse_rules("rules:\n  - {rule: spare_records, max: 2}", "r.yaml")
        assert rules == (SpareRecords(line=2, max=2),)
        result = judge(run_of(summarized({"mae": [1.0]}, failed=3)), rules).results[0]
        assert (result.what, result.value, result.limit, result.outcome) == ("spare_records", 3, "<= 2", "fail")

    @pytest.mark.parametrize(
        ("keys", "message"),
        [
            ("", "rule 'spare_records' needs the key 'max'"),
            (", max: -1", "max: -1 is less than the minimum of 0"),
            (", max: 1, tolerence: 1", "has no key 'tolerence'. Did you mean 'tolerance'?"),
        ],
    )
    def test_is_validated(self, keys, message):
        with pytest.raises(UsageError, match=message.replace("?", r"\?")):
            parse_rules(f"rules:\n  - {{rule: spare_records{keys}}}", "r.yaml")
