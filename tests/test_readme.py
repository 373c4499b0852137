"""The README tells the truth: every flag, loss, preset, and reason code in it, and no other."""

import re
from pathlib import Path

import pytest

from pipeline.config import PRESETS, parse
from transforms.images.decode import REASONS
from transforms.losses.catalog import LOSSES
from transforms.reading.read_chunks import READ_REASONS
from transforms.scoring.score import SCORE_REASONS

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return re.split(r"^##+ ", README.partition(f"## {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def code(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def table_rows(text: str) -> list[list[str]]:
    """The rows of all tables of the text, without their headers."""
    tables = re.findall(r"^\|[- |]+\|\n((?:\|.*\n)+)", text, flags=re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for table in tables for line in table.splitlines()]


def test_options_are_the_flags_of_the_program(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    flags = set(re.findall(r"^  (--\w+)", capsys.readouterr().out, flags=re.MULTILINE))
    documented = {flag for row in table_rows(section("Options")) for flag in code(row[0])}
    # Its own section tells of this one.
    assert documented == flags - {"--list_losses"}
    assert "--list_losses" in section("Losses")


def test_losses_are_those_of_the_catalogue():
    rows = table_rows(section("Losses"))
    documented = [name for kind, names in (row for row in rows if len(row) == 2) for name in code(names)]
    assert sorted(documented) == sorted(LOSSES)


def test_presets_are_those_of_the_program():
    documented = {code(row[0])[0]: row[1:] for row in table_rows(section("Losses")) if len(row) == 3}
    assert documented.keys() == PRESETS.keys()
    for name, (losses, objective) in documented.items():
        assert tuple(loss for loss in code(losses) if loss in LOSSES) == PRESETS[name].losses
        assert "".join(code(objective)) == PRESETS[name].objective


def test_reasons_are_those_of_the_steps():
    documented = {row[0].strip("`"): row[1] for row in table_rows(section("Bad input"))}
    assert documented == {**READ_REASONS, **REASONS, **SCORE_REASONS}
