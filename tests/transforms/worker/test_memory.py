"""How much memory is left, and that a pass through a network which takes more costs its pair alone."""

import math
import subprocess
import sys

import pytest

from transforms.worker import memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def test_the_machine_has_some():
    assert 2**20 < memory.available_memory() < 2**50


@pytest.mark.parametrize(
    ("limit", "left"), [("max\n", math.inf), (f"{2**30}\n", 2**30 - 600 + 100)], ids=["no limit", "a limit"]
)
def test_a_containers_cached_files_make_room(tmp_path, monkeypatch, limit, left):
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("600\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 100\nactive_file 0\n")
    monkeypatch.setattr(memory, "_CONTAINER", tmp_path)
    assert memory._of_container() == left


_SHORT_OF_MEMORY = """
import resource
import numpy as np
from transforms.images.pairs import DecodedPair
from transforms.losses.plan import EvaluationError, Plan
from transforms.scoring.score import evaluate_group, load_evaluator

evaluator = load_evaluator(Plan(("lpips_vgg",), backend={backend!r}).with_weights())
noise = np.random.default_rng(0).integers
small, large = ([DecodedPair(*noise(0, 256, (2, side, side, 3), np.uint8))] for side in (32, 1500))
((_, before),) = evaluate_group(evaluator, small)
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (256 << 20), resource.RLIM_INFINITY))
((_, error),) = evaluate_group(evaluator, large)
assert isinstance(error, EvaluationError), error
assert "memory ran out" in str(error) or "out of memory" in str(error), error
((_, after),) = evaluate_group(evaluator, small)
assert before["lpips_vgg"] == after["lpips_vgg"]
"""


@pytest.mark.heavy
@pytest.mark.parametrize("backend", [pytest.param("tensorflow", marks=pytest.mark.slow), "ncnn"])
def test_want_of_memory_in_the_network_costs_one_pair(lpips_weights, backend):
    """A process whose address space is limited."""
    script = _SHORT_OF_MEMORY.format(backend=backend)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
