"""The number of threads of a worker process: TensorFlow, decoding and the fused kernels use that many each.

By default it is the number of CPUs. If several processes share a machine, TensorFlow's own environment variable
TF_NUM_INTRAOP_THREADS gives each its share. The launcher sets it for the worker processes of the local engine; whoever
starts a worker pool sets it for the pool's processes.
"""

import math
import os
from pathlib import Path

VARIABLE = "TF_NUM_INTRAOP_THREADS"

# Linux's cgroup v2 states a container's quota here: microseconds of CPU time, or `max`, per period in microseconds.
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def thread_count() -> int:
    """The number of threads for this process: its share if one is set, otherwise all CPUs available to it."""
    share = os.environ.get(VARIABLE, "")
    return int(share) if share.isdecimal() and int(share) else available_cpus()


def available_cpus() -> int:
    """The number of CPUs that this process may run on, at most the CPU time that its container may use."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return math.ceil(min(cpus, _quota()))


def _quota() -> float:
    """The container's CPU time, in CPUs."""
    if not _CPU_MAX.exists():
        return math.inf
    quota, period = _CPU_MAX.read_text(encoding="ascii").split()
    return math.inf if quota == "max" else int(quota) / int(period)
