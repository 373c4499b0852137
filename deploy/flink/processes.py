"""Processes that never outlive this one, and what the system tells of them."""

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
    """Processes that end when the `with` block does, with all that they started, however this process ends."""

    def __enter__(self) -> "ProcessGroup":
        # It leads the group. Its input ends with this process, though that be killed, and then it kills the group.
        self._leader = subprocess.Popen(["sh", "-c", "read -r _; kill -KILL 0"], stdin=subprocess.PIPE, process_group=0)
        self._members: list[subprocess.Popen] = []
        return self

    def __exit__(self, *_: object) -> None:
        # Not waited for before: its number stays the group's.
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
            log: where its output is appended; None: it has ours.
            variables: its whole environment; None: ours.
            directory: where it runs; None: where we do.
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
        parent: that of the process that started it.
        kib: memory it occupies.
    """

    pid: int
    parent: int
    kib: int


def children(parent: int) -> list[Running]:
    """The running processes that a process started, the oldest first."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,rss=,stat="], capture_output=True, text=True, check=True)
    rows = [line.split() for line in listed.stdout.splitlines()]
    running = [Running(*map(int, row[:3])) for row in rows if not row[3].startswith("Z")]
    return sorted((process for process in running if process.parent == parent), key=lambda process: process.pid)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody uses."""
    with ExitStack() as sockets:
        bound = [sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in bound]


def is_listening(address: str) -> bool:
    """Whether something accepts connections at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until(condition: Callable[[], bool], seconds: float, each: float = 0.1) -> bool:
    """Ask again and again until the condition holds; False: it did not in that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(each)
    return True
