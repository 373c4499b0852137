"""The child process of a sandbox: runs tasks on untrusted bytes for its worker, under limits it sets itself.

`python -m transforms.worker.sandbox_child CONNECTION PARENT SECONDS MEMORY TASK`: a process of its own, which never
sees the `__main__` of its worker, whether that is a script without a guard, a notebook or Beam. It gets ready for TASK,
if that is not empty. A task is a generator function; its items are sent as they come, and each is given its own time.
"""

import contextlib
import ctypes
import errno
import importlib
import io
import os
import pkgutil
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

from transforms.worker.messages import receive, receive_descriptor, send

# Every task needs these. They are imported while the child waits for its first task.
_LIBRARIES = ("numpy", "PIL.Image", "pyarrow")
_PR_SET_PDEATHSIG = 1

# A large file may take twice its size more, as it is stored and unpacked: its writer may have put a gigabyte of images
# into one page. A small one that takes so much is a bomb.
_MOST_FOR_FILE = 4 << 30
# The last rows of a large row group, or those behind a long stretch of damage, take long to reach: a file gets the time
# of a record once more for each of these.
_FILE_BYTES_PER_TIME = 256 << 20
# Asking for so much takes no longer than for a header, and small records come with it.
_BUFFER_BYTES = 16 << 10


def main(arguments: Sequence[str]) -> None:
    """Serve the worker at the other end of the connection until it closes it."""
    connection, parent, seconds, memory = int(arguments[0]), int(arguments[1]), float(arguments[2]), int(arguments[3])
    task = arguments[4]
    _prepare(parent)
    with socket.socket(fileno=connection) as worker:
        for library in _LIBRARIES:
            importlib.import_module(library)
        if task:
            pkgutil.resolve_name(task)
        memory += _address_space()
        # The worker has gone, or has lost interest.
        with contextlib.suppress(EOFError, ConnectionError):
            send(worker, {"kind": "ready"})
            while True:
                memory += _serve(worker, seconds, memory)


class _WorkersFile(io.RawIOBase):
    """A file that the worker has opened, read by its descriptor or by asking for ranges."""

    def __init__(self, worker: socket.socket, size: int, descriptor: int | None):
        self._worker = worker
        self._descriptor = descriptor
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError(f"offset {start + offset} lies before the beginning of the file")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = max(0, min(len(buffer), self._size - self._position))
        if not wanted:
            return 0
        if self._descriptor is not None:
            # The worker then reads the range itself, and its error says whether the file is at fault.
            with contextlib.suppress(OSError):
                # The worker shares the file's position, so it is left where it is.
                read = os.preadv(self._descriptor, [memoryview(buffer)[:wanted]], self._position)
                self._position += read
                return read
        send(self._worker, {"kind": "read", "offset": self._position, "size": wanted})
        _, (data,) = receive(self._worker)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _serve(worker: socket.socket, seconds: float, memory: int) -> int:
    """Run one task, and send its items, or the error it ended with.

    Returns:
        the bytes of address space that the task's libraries take if they had not been imported yet.
    """
    request, parts = receive(worker)
    descriptor = receive_descriptor(worker) if request["is_given"] else None
    libraries = 0
    try:
        # A module may allocate when it is imported, which is not the record's fault.
        before = _address_space()
        task = pkgutil.resolve_name(request["task"])
        libraries = _address_space() - before
        send(worker, {"kind": "ready"})
        size = request["file_size"]
        seconds += seconds * (size or 0) / _FILE_BYTES_PER_TIME
        _start_clock(seconds)
        _limit_memory(memory + libraries + min(2 * (size or 0), _MOST_FOR_FILE))
        file = None if size is None else io.BufferedReader(_WorkersFile(worker, size, descriptor), _BUFFER_BYTES)
        for item, buffers in task(request["arguments"], parts, file):
            send(worker, {"kind": "item", "item": item}, buffers)
            _start_clock(seconds)
        send(worker, {"kind": "done"})
    except (EOFError, ConnectionError):
        raise
    except Exception as error:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            send(worker, {"kind": "out_of_memory"})
        else:
            send(worker, {"kind": "error", "type": type(error).__name__, "message": str(error)})
    finally:
        # The worker's next request is limited by nothing, and neither is the import of its task.
        _limit_memory(None)
        _start_clock(0)
        if descriptor is not None:
            os.close(descriptor)
    return libraries


def _start_clock(seconds: float) -> None:
    """Let the kernel end this process when it has computed so long, 0: never. CPU time does not depend on the load."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _prepare(parent: int) -> None:
    # A terminal's Ctrl-C is for the worker, which closes the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    # A crash is a row of the failures: a dump of the memory helps nobody.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the worker has ended")


def _address_space() -> int:
    """The bytes of address space that this process takes."""
    if sys.platform != "linux" or not os.path.exists("/proc/self/statm"):
        return 0
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _limit_memory(bytes: int | None) -> None:
    """Limit the address space; None: as far as the system does."""
    if sys.platform == "linux":
        # `ulimit -v` of the user may be lower, and cannot be raised.
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limits = [limit for limit in (bytes, hard) if limit is not None and limit != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_AS, (min(limits, default=resource.RLIM_INFINITY), hard))


if __name__ == "__main__":
    main(sys.argv[1:])
