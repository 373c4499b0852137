"""Say in one line why an engine broke off a run.

Engines wrap a worker's exception in tracebacks of their own; Flink adds Java's. The line that matters is the one in
which Beam's worker names the exception and the step. If there is none, the error was Java's.
"""

import re

_WORKERS_LINE = re.compile(r"^(?:RuntimeError: )?(?:\w+\.)*(\w+: .*) \[while running '([^']+)'\]", re.MULTILINE)
_JAVAS_LINE = re.compile(r"^(?:Caused by: )?(?:[\w$]+\.)+([\w$]+: .+)", re.MULTILINE)

# A remedy for each known message.
_REMEDIES = {
    r"No module named '(pipeline|transforms)'": (
        "the workers have no pairloss: install it in the Python that runs them, or give their image with "
        "--sdk_container_image"
    ),
    r"ConnectException: .*Connection refused": (
        "no worker pool answers at --environment_config: start one beside every TaskManager; or the JobManager is gone"
    ),
    r"(PermissionError|NotADirectoryError|Read-only file system)": (
        "give an --output that every worker may write to, such as a gs:// directory"
    ),
}


def explain(text: str) -> str:
    """The reason in an engine's error message, in one line, with a remedy if one is known."""
    if found := _WORKERS_LINE.findall(text):
        told, step = found[-1]
        reason = f"{told} (in step {step})"
    elif found := _JAVAS_LINE.findall(text):
        reason = found[-1]
    else:
        reason = " ".join(text.split())
    remedies = [remedy for pattern, remedy in _REMEDIES.items() if re.search(pattern, reason)]
    return "; ".join([reason, *remedies])
