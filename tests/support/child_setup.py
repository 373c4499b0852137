"""Commands that set up their own process and then run another one in it.

`preexec_fn` would do the same between fork and exec, but it may crash a process that has threads, and this one always
has some: TensorFlow's, gRPC's.
"""

import sys
from collections.abc import Sequence

# Python ignores SIGPIPE and SIGXFSZ for itself; a program that is started next must not inherit that.
_SET_UP = """
import os, resource, signal, sys
file_bytes, *command = sys.argv[1:]
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(number, signal.SIG_DFL)
if file_bytes:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(file_bytes),) * 2)
os.execvp(command[0], command)
"""

_CONNECT = """
import os, sys
sources, command = sys.argv[1].split(","), sys.argv[2:]
for number, source in enumerate(map(int, sources), start=3):
    os.dup2(source, number)
    os.close(source)
os.execvp(command[0], command)
"""


def interruptible(command: Sequence[str], file_bytes: int | None = None) -> list[str]:
    """The command with signals as a terminal would leave them: a shell starts background jobs with SIGINT ignored.

    Args:
        command: the program and its arguments.
        file_bytes: the largest file it may write, which stands for a full disk.
    """
    limit = "" if file_bytes is None else str(file_bytes)
    return [sys.executable, "-I", "-S", "-c", _SET_UP, limit, *command]


def connected(command: Sequence[str], *descriptors: int) -> list[str]:
    """The command with the inherited descriptors as its 3, 4, ...; each of them is 10 or more."""
    return [sys.executable, "-I", "-S", "-c", _CONNECT, ",".join(map(str, descriptors)), *command]
