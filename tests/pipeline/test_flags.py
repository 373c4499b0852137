"""A setting is one field: its flag, its value, its line in run.json and in the table of options follow from it."""

import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from pipeline import parse as module
from pipeline.config import Config
from pipeline.errors import UsageError
from pipeline.parse import parse, parser
from transforms.descent.settings import Descent
from transforms.images.decode import DecodePolicy
from transforms.losses.plan import Plan
from transforms.settings import setting

NEEDED = ["--input=in.parquet", "--output=out"]


@dataclass(frozen=True)
class MoreImages(DecodePolicy):
    background: str = setting("shows through transparent pixels", "white", choices=("white", "black"))


@dataclass(frozen=True)
class MorePlan(Plan):
    border: int = setting("pixels to crop from every side", 0)


@dataclass(frozen=True)
class MoreDescent(Descent):
    momentum: float | None = setting("of the steps", None)


@dataclass(frozen=True, kw_only=True)
class More(Config):
    policy: MoreImages = field(metadata={"group": "images", "identity": "images"})
    plan: MorePlan = field(metadata={"group": "losses"})
    descent: MoreDescent | None = field(default=None, metadata={"group": "optimizing the generated images"})
    retries: int = setting("of a chunk", 3, group="work", positive=True)
    webhook: str = setting("gets the verdict", "", group="news", identity=False)


@pytest.fixture(autouse=True)
def more(monkeypatch):
    for name, cls in (("Config", More), ("Plan", MorePlan), ("Descent", MoreDescent)):
        monkeypatch.setattr(module, name, cls)


@pytest.mark.parametrize(
    ("flag", "read", "line", "default", "given"),
    [
        ("background", lambda c: c.policy.background, lambda i: i["images"]["background"], "white", "black"),
        ("border", lambda c: c.plan.border, lambda i: i["border"], 0, 4),
        ("momentum", lambda c: c.descent.momentum, lambda i: i["descent"]["momentum"], None, 0.5),
        ("retries", lambda c: c.retries, lambda i: i["retries"], 3, 7),
    ],
)
def test_a_field_is_a_setting(flag, read, line, default, given):
    for arguments, value in (([], default), ([f"--{flag}={given}"], given)):
        config = parse([*NEEDED, "--optimize", *arguments])
        assert (read(config), line(config.identity())) == (value, value)


def test_a_setting_may_be_no_part_of_the_identity():
    config = parse([*NEEDED, "--webhook=https://x"])
    assert config.webhook == "https://x"
    assert config.identity() == parse(NEEDED).identity()


def test_help(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = capsys.readouterr().out
    work, news = text.index("\nwork:\n"), text.index("\nnews:\n")
    assert work < text.index("  --retries") < news < text.index("  --webhook")
    assert "of a chunk (default: 3)" in text
    assert "{white,black}" in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--background=red"], ["--background", "red", "white", "black"]),
        (["--retries=0"], ["--retries", "'0'", "at least 1"]),
        (["--border=wide"], ["--border", "'wide'"]),
        (["--momentum=0.5"], ["--momentum", "--optimize"]),
    ],
)
def test_wrong(arguments, told):
    with pytest.raises(UsageError) as caught:
        parse([*NEEDED, *arguments])
    assert [part for part in told if part not in str(caught.value)] == []


def test_every_flag_has_a_group_and_a_help_text():
    actions = [action for action in parser()._actions if action.dest != "help"]
    assert all(action.help for action in actions)
    assert len({action.dest for action in actions}) == len(actions)


@pytest.mark.parametrize("flag", ["--list_losses", "--help", "--version"])
def test_a_reader_that_has_seen_enough(flag):
    command = f"{sys.executable} -m pipeline.run {flag} | head -c1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stdout), done.stderr) == (0, 1, "")
