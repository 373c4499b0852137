"""Count chunks and pairs in Beam's counters and also in this process, so that progress shows live.

Runners that execute in the launcher's process report Beam's metrics only at the end.
"""

from collections import Counter
from threading import Lock

from apache_beam.metrics import Metrics

NAMESPACE = "pairloss"

_in_process: Counter[str] = Counter()
_lock = Lock()


def count(name: str, number: int = 1) -> None:
    """Add to the counter of this name."""
    Metrics.counter(NAMESPACE, name).inc(number)
    with _lock:
        _in_process[name] += number


def counted_in_process() -> Counter[str]:
    """The counts of this process since it started or since `reset_in_process`."""
    with _lock:
        return _in_process.copy()


def reset_in_process() -> None:
    """Start counting from zero: a process may launch several runs."""
    with _lock:
        _in_process.clear()
