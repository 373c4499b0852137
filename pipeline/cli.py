"""The console script `pairloss`: the same as `python -m pipeline.run`, `.audit`, `.weights` and `.samples`."""

import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "run": ("pipeline.run", "score a dataset of image pairs"),
    "audit": ("pipeline.audit.__main__", "judge and report finished runs"),
    "weights": ("pipeline.weights", "fetch the published LPIPS weights"),
    "samples": ("pipeline.samples", "make sample pairs of degraded photographs"),
}
USAGE = 2

_HELP = "usage: pairloss COMMAND ..., --help after a command tells its flags\n\n" + "\n".join(
    f"  {name:8} {what}" for name, (_, what) in COMMANDS.items()
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_HELP, file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else USAGE
    command, *rest = arguments
    if command not in COMMANDS:
        print(f"error: no command {command!r}; the commands are {', '.join(COMMANDS)}", file=sys.stderr)
        return USAGE
    code: int = importlib.import_module(COMMANDS[command][0]).main(rest)
    return code
