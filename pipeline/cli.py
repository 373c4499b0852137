"""The command `pairloss VERB`. `python -m pipeline.run`, `.audit`, `.weights` and `.samples` do the same."""

import importlib
import sys
from collections.abc import Mapping, Sequence

from pipeline import __version__
from pipeline.console.streams import guarded
from pipeline.errors import OK, USAGE, nearest

COMMANDS = {
    "run": ("pipeline.run", "score a dataset of image pairs"),
    "score": ("pipeline.score", "score two folders, generated images first: a short form of run"),
    "status": ("pipeline.status", "say how far a run is, from its directory"),
    "pack": ("pipeline.pack", "copy pairs from anywhere into checked Parquet shards of even size"),
    "audit": ("pipeline.audit.__main__", "judge and report finished runs"),
    "weights": ("pipeline.weights", "fetch the published LPIPS weights"),
    "samples": ("pipeline.samples", "make sample pairs of degraded photographs"),
}
_USAGE = "usage: pairloss COMMAND ...; pairloss COMMAND --help lists its flags"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return guarded(_run, sys.argv[1:] if argv is None else argv)


def _run(argv: Sequence[str]) -> int:
    arguments = list(argv)
    if arguments[:1] == ["--version"]:
        print(f"pairloss {__version__}")
        return OK
    return dispatch("command", COMMANDS, arguments, _USAGE)


def dispatch(kind: str, choices: Mapping[str, tuple[str, str]], argv: Sequence[str], usage: str) -> int:
    """Run the `main` of the module that the first argument names; return its exit code.

    Args:
        kind: of the choices, `command` or `verb`.
        choices: by name, the module and a description.
        argv: the arguments; without any, or for `--help`, the choices are listed.
        usage: stands above that list.
    """
    if not argv or argv[0] in ("-h", "--help"):
        lines = (f"  {name:8} {description}" for name, (_, description) in choices.items())
        print(usage, "", *lines, sep="\n", file=sys.stdout if argv else sys.stderr)
        return OK if argv else USAGE
    name, *rest = argv
    if name not in choices:
        hint = nearest(name, choices)
        print(f"error: no {kind} {name!r}.{hint} The {kind}s are {', '.join(choices)}", file=sys.stderr)
        return USAGE
    code: int = importlib.import_module(choices[name][0]).main(rest)
    return code
