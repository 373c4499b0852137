"""A short run of the fuzzer: `python -m benchmarks.fuzz` runs longer ones."""

import pytest

from benchmarks import fuzz
from transforms.images.formats import IMAGE_FORMATS
from transforms.reading.format import format_names
from transforms.worker.sandbox import Sandbox


def test_every_image_format_is_fuzzed():
    assert list(fuzz.image_bases()) == [*(format.name for format in IMAGE_FORMATS if format.open), fuzz.ARRAY]
    assert all(fuzz.image_bases().values())


def test_every_input_format_is_fuzzed():
    assert set(format_names()) <= {kind for kind, bases in fuzz.file_bases().items() if bases}


@pytest.mark.parametrize(
    ("trial", "kinds"),
    [(fuzz.try_images, fuzz.image_bases), (fuzz.try_files, fuzz.file_bases)],
    ids=["images", "files"],
)
def test_no_record_is_lost(trial, kinds):
    outcomes = fuzz.fuzz(trial, list(kinds()), 4 * len(kinds()), 1, 0, Sandbox())
    assert [outcome.mutants for outcome in outcomes.values()] == [4] * len(kinds())
    assert [outcome.problems for outcome in outcomes.values()] == [[]] * len(kinds())
    assert sum(sum(outcome.counts.values()) for outcome in outcomes.values()) >= 4 * len(kinds())


def test_what_must_not_happen_is_a_problem(monkeypatch, capsys):
    monkeypatch.setattr(fuzz, "read_series", lambda *_: iter(()[0]))
    assert fuzz.main(["--images=0", "--files=2", "--only=csv,jsonl"]) == 1
    assert "PROBLEM: csv 0: IndexError" in capsys.readouterr().out
