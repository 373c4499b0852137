"""The command `pairloss VERB`. `python -m pipeline.run`, `.audit`, `.weights` and `.samples` do the same."""

import importlib
import sys
from collections.abc import Sequence

from pipeline import __version__
from pipeline.errors import USAGE, nearest

COMMANDS = {
    "run": ("pipeline.run", "score a dataset of image pairs"),
    "score": ("pipeline.score", "score two folders, generated images first: a short form of run"),
    "audit": ("pipeline.audit.__main__", "judge and report finished runs"),
    "weights": ("pipeline.weights", "fetch the published LPIPS weights"),
    "samples": ("pipeline.samples", "make sample pairs of degraded photographs"),
}

_HELP = "usage: pairloss COMMAND ...; pairloss COMMAND --help lists its flags\n\n" + "\n".join(
    f"  {name:8} {description}" for name, (_, description) in COMMANDS.items()
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_HELP, file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else USAGE
    if arguments[0] == "--version":
        print(f"pairloss {__version__}")
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        hint = nearest(command, COMMANDS)
        print(f"error: no command {command!r}.{hint} The commands are {', '.join(COMMANDS)}", file=sys.stderr)
        return USAGE
    code: int = importlib.import_module(COMMANDS[command][0]).main(rest)
    return code
