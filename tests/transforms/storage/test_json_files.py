"""JSON as it is written: readable, compact where it is long, and valid."""

import datetime
import json
import math

import pytest

from transforms.storage.json_files import to_json


def test_layout():
    assert to_json({"a": 1, "day": datetime.date(2024, 2, 29)}) == b'{\n "a": 1,\n "day": "2024-02-29"\n}\n'
    lists = {"a": [1, -2], "b": [], "c": ["[\n1,\n2]", 3], "d": [0.5]}
    assert b'"a": [1,-2],\n' in to_json(lists)
    assert json.loads(to_json(lists)) == lists


def test_infinity_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"a": math.inf})
