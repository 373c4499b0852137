"""run.json as a value: what is written is read back, and what is not a run's is refused."""

import json
import math
from dataclasses import replace

import pytest

from transforms.storage.run_record import RunRecord

BEGUN = RunRecord(
    fingerprint="f", identity={"losses": ["mae"]}, versions={"numpy": "2"}, beam_flags=("-x",), started=1.5
)
ENDED = replace(BEGUN, status="finished", seconds=2.0, counts={"read": 3}, precision=("float32",))


@pytest.mark.parametrize("record", [BEGUN, ENDED], ids=["begun", "ended"])
def test_read_back(record):
    assert RunRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_an_unfinished_run_tells_nothing_of_its_end():
    assert list(BEGUN.to_json()) == [
        *("status", "fingerprint", "identity", "versions", "beam_flags", "started", "claim")
    ]


def test_keys_of_another_version():
    assert RunRecord.from_json({**json.loads(json.dumps(BEGUN.to_json())), "new": 1}) == BEGUN


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "does not hold a JSON object"),
        ([], "does not hold a JSON object"),
        ({"identity": {}}, "has no fingerprint"),
        ({"fingerprint": "f"}, "has no identity"),
        ({"fingerprint": "f", "identity": []}, r"has identity=\[\]"),
        ({"fingerprint": "f", "identity": {}, "started": "today"}, "has started='today'"),
        ({"fingerprint": "f", "identity": {}, "started": 1e300}, r"has started=1e\+300"),
        ({"fingerprint": "f", "identity": {}, "seconds": math.nan}, "has seconds=nan"),
    ],
    ids=str,
)
def test_not_a_record(content, told):
    with pytest.raises(ValueError, match=told):
        RunRecord.from_json(content)
