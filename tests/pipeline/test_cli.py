"""The console script and the audit's door: which command runs, and what is said to a wrong one."""

import importlib
import sys

import pytest

from pipeline import cli
from pipeline.audit import __main__ as audit

USAGE = 2


@pytest.mark.parametrize(("main", "names"), [(cli.main, cli.COMMANDS), (audit.main, audit.VERBS)], ids=["cli", "audit"])
class TestDoors:
    def test_help_names_all(self, main, names, capsys):
        assert main(["--help"]) == 0
        out = capsys.readouterr().out
        assert all(f"  {name} " in out for name in names)

    def test_nothing(self, main, names, capsys):
        assert main([]) == USAGE
        assert capsys.readouterr().err.startswith("usage: ")

    def test_unknown(self, main, names, capsys):
        assert main(["gaet"]) == USAGE
        error = capsys.readouterr().err
        assert f"'gaet'. The {'verbs' if names is audit.VERBS else 'commands'} are {', '.join(names)}" in (
            error.replace(" Did you mean 'gate'?", "")
        )
        assert ("Did you mean 'gate'?" in error) == ("gate" in names)


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("pairloss 0.")


@pytest.mark.parametrize("module", [module for module, _ in cli.COMMANDS.values()])
def test_commands_get_their_arguments(monkeypatch, module):
    seen = []
    monkeypatch.setattr(importlib.import_module(module), "main", lambda argv: seen.append(argv) or 7)
    (command,) = (name for name, (target, _) in cli.COMMANDS.items() if target == module)
    monkeypatch.setattr(sys, "argv", ["pairloss", command, "--flag", "x"])
    assert cli.main() == 7
    assert seen == [["--flag", "x"]]


@pytest.mark.parametrize("verb", audit.VERBS)
def test_every_verb_tells_its_flags(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        audit.main([verb, "--help"])
    assert ended.value.code == 0
    assert f"usage: pairloss audit {verb} " in capsys.readouterr().out
