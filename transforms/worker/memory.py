"""The memory that this process may still take, and the most that it has taken."""

import ctypes
import math
import mmap
import resource
import sys
from pathlib import Path

# Linux's cgroup v2 states a container's memory here.
_CONTAINER = Path("/sys/fs/cgroup")


def available_memory() -> float:
    """Bytes that the machine, the container and the limit of this process leave; infinity where nothing says so."""
    if sys.platform != "linux" or not Path("/proc/meminfo").exists():
        return math.inf
    return min(_of_machine(), _of_container(), _of_process())


def has_room(size: int) -> bool:
    """True if this process may take so many more bytes at once; none of them is touched."""
    try:
        mmap.mmap(-1, size).close()
    except OSError:
        return False
    return True


def release_memory() -> None:
    """Give memory that was freed back to the system, where the C library keeps it otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def peak_memory() -> int:
    """The most bytes of memory that this process has held at once, without its children."""
    # macOS counts bytes, other systems count kilobytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _of_machine() -> float:
    return _named(Path("/proc/meminfo"), "MemAvailable:") * 1024


def _of_container() -> float:
    most = _CONTAINER / "memory.max"
    limit = most.read_text(encoding="ascii").strip() if most.exists() else "max"
    if limit == "max":
        return math.inf
    used = int((_CONTAINER / "memory.current").read_text(encoding="ascii"))
    # Cached files make room.
    return int(limit) - used + _named(_CONTAINER / "memory.stat", "inactive_file")


def _of_process() -> float:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return math.inf if limit == resource.RLIM_INFINITY else limit - _named(Path("/proc/self/status"), "VmSize:") * 1024


def _named(file: Path, name: str) -> int:
    """The number behind a name at the start of a line."""
    lines = (line.split() for line in file.read_text(encoding="ascii").splitlines())
    return next(int(words[1]) for words in lines if words[:1] == [name])
