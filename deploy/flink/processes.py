"""Start processes that never outlive this one, and look at them."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path


class ProcessGroup:
    """Processes that end, with all their children, when the `with` block does, or when this process is killed."""

    def __enter__(self) -> "ProcessGroup":
        # The leader of the group reads its input, which closes when this process ends, even if it is killed. Then the
        # leader kills the group.
        self._leader = subprocess.Popen(["sh", "-c", "read -r _; kill -KILL 0"], stdin=subprocess.PIPE, process_group=0)
        self._members: list[subprocess.Popen] = []
        return self

    def __exit__(self, *_: object) -> None:
        # Nobody has waited for the leader yet, so its number is still the group's.
        os.killpg(self._leader.pid, signal.SIGKILL)
        for process in (*self._members, self._leader):
            process.communicate()

    def start(
        self,
        command: Sequence[str],
        log: Path | None = None,
        variables: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> subprocess.Popen:
        """Start a process.

        Args:
            command: what to run.
            log: file to which its output is appended; None: it shares ours.
            variables: its whole environment; None: ours.
            directory: its working directory; None: ours.
        """
        with ExitStack() as files:
            output = files.enter_context(log.open("ab")) if log else None
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if log else None,
                env=variables,
                cwd=directory,
                process_group=self._leader.pid,
            )
        self._members.append(process)
        return process


@dataclass(frozen=True)
class Running:
    """A running process.

    Attributes:
        pid: its number.
        parent: the number of its parent process.
        kib: its resident memory.
    """

    pid: int
    parent: int
    kib: int


def children(parent: int) -> list[Running]:
    """Return the running children of a process, the oldest first."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,rss=,stat="], capture_output=True, text=True, check=True)
    rows = [line.split() for line in listed.stdout.splitlines()]
    running = [Running(*map(int, row[:3])) for row in rows if not row[3].startswith("Z")]
    return sorted((process for process in running if process.parent == parent), key=lambda process: process.pid)


def free_ports(count: int) -> list[int]:
    """Return unused ports of the loopback interface."""
    with ExitStack() as sockets:
        bound = [sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in bound]


def is_listening(address: str) -> bool:
    """True if something accepts connections at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until(condition: Callable[[], bool], seconds: float, each: float = 0.1) -> bool:
    """Wait until the condition holds; False: it did not hold within that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(each)
    return True
