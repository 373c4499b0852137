"""Threads: all CPUs a process may use, or the share it was given."""

import subprocess
import sys

import pytest

from transforms.worker import threads


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch, tmp_path):
    """A machine of 8 CPUs, without a share and without a quota."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv(threads.VARIABLE, raising=False)
    monkeypatch.setattr(threads, "_CPU_MAX", tmp_path / "cpu.max")


@pytest.mark.parametrize(("share", "count"), [("3", 3), ("20", 20), ("", 8), ("0", 8), ("many", 8), ("-1", 8)])
def test_share(monkeypatch, share, count):
    monkeypatch.setenv(threads.VARIABLE, share)
    assert threads.thread_count() == count


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1), ("6400000 100000", 8)],
)
def test_quota_of_a_container(tmp_path, quota, cpus):
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert threads.available_cpus() == cpus
    assert threads.thread_count() == cpus


def test_without_affinity(monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert threads.available_cpus() == 6


@pytest.mark.heavy
def test_tensorflow_gets_as_many(monkeypatch):
    monkeypatch.setenv(threads.VARIABLE, "3")
    code = """
from transforms.worker.tensorflow_import import import_tensorflow
import_tensorflow()
import tensorflow
settings = tensorflow.config.threading
print(settings.get_intra_op_parallelism_threads(), settings.get_inter_op_parallelism_threads())
"""
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed == "3 3\n"
