"""How many threads a worker process computes with: TensorFlow, decoding and the fused kernels take as many each.

That is as many as it has CPUs. Where several processes share a machine, TensorFlow's own environment variable
TF_NUM_INTRAOP_THREADS tells each its share: worker processes of the local engine get it from the launcher, those of a
worker pool from whoever starts the pool.
"""

import math
import os
from pathlib import Path

VARIABLE = "TF_NUM_INTRAOP_THREADS"

# Linux's cgroup v2 tells a container its quota here: microseconds of CPU time, or `max`, and of how many.
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def thread_count() -> int:
    """The share of this process, or all CPUs there are for it."""
    share = os.environ.get(VARIABLE, "")
    return int(share) if share.isdecimal() and int(share) else available_cpus()


def available_cpus() -> int:
    """CPUs that this process may run on; fewer where its container may not use all their time."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return math.ceil(min(cpus, _quota()))


def _quota() -> float:
    """The time of how many CPUs the container may use."""
    if not _CPU_MAX.exists():
        return math.inf
    quota, period = _CPU_MAX.read_text(encoding="ascii").split()
    return math.inf if quota == "max" else int(quota) / int(period)
