"""Records that crash their process, hang or take all memory, among good ones: they fail alone, and the run goes on."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import flink_jobs, shards
from support.bombs import SEGFAULT, SPIN, environment_with_bugs, huge_png
from support.child_setup import interruptible
from support.pictures import encode, smooth
from support.required import missing, prism_binary

from deploy.flink.downloads import missing_tools
from deploy.flink.session_cluster import SessionCluster

PAIRS = 60
LIMITS = ["--max_record_seconds=2", f"--max_record_memory={300 << 20}", "--max_image_pixels=1000000000"]
ENGINES = {"in process": [], "two processes": ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]}


def write(path: Path, poison: dict[int, bytes]) -> Path:
    good = encode(smooth(24, 32))
    pairs = [
        {"id": str(n), "generated": poison.get(n, encode(smooth(24, 32, n))), "target": good} for n in range(PAIRS)
    ]
    shards.write_parquet(path, pa.Table.from_pylist(pairs))
    return path


def command(path: Path, output: Path, *flags: str) -> list[str]:
    run = [sys.executable, "-m", "pipeline.run", f"--input={path}", f"--output={output}", "--preset=edges", "--quiet"]
    return [*run, "--chunk_pairs=20", *flags]


POISON = {7: SEGFAULT, 25: SPIN, 26: huge_png(), 59: SEGFAULT}


def check(output: Path) -> None:
    """Every pair was scored but the poisonous ones, which failed each with its reason."""
    assert len(pq.read_table(output / "metrics")) == PAIRS - len(POISON)
    lines = [line for file in (output / "failures").iterdir() for line in file.read_text().splitlines()]
    failures = {row["id"]: (row["stage"], row["reason"]) for row in map(json.loads, lines)}
    reasons = {"7": "crashed", "25": "timed_out", "26": "out_of_memory", "59": "crashed"}
    assert failures == {id: ("decode", reason) for id, reason in reasons.items()}


@pytest.mark.heavy
@pytest.mark.parametrize("engine", [*ENGINES, pytest.param("prism", marks=pytest.mark.slow)])
def test_each_poison_fails_alone(tmp_path: Path, engine: str) -> None:
    flags = [f"--prism_location={prism_binary()}"] if engine == "prism" else ENGINES[engine]
    path, output = write(tmp_path / "pairs.parquet", POISON), tmp_path / "run"
    environment = environment_with_bugs(tmp_path / "site")
    done = subprocess.run(
        command(path, output, *LIMITS, *flags), env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    check(output)


@pytest.mark.slow
@pytest.mark.flink
def test_each_poison_fails_alone_on_flink(tmp_path: Path) -> None:
    if tools := missing_tools():
        missing("flink", tools)
    path, output = write(tmp_path / "pairs.parquet", POISON), tmp_path / "run"
    variables = {"PYTHONPATH": environment_with_bugs(tmp_path / "site")["PYTHONPATH"]}
    with SessionCluster(slots=1, variables=variables) as cluster:
        launcher = cluster.start(
            command(path, output, *LIMITS, *cluster.flags(False, parallelism=1)), flink_jobs.log_of(output)
        )
        flink_jobs.finish(launcher, output)
    check(output)


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_signal_ends_a_run_that_is_busy(tmp_path: Path, engine: str, number: signal.Signals) -> None:
    """At once, although a picture takes minutes, and nothing of it is left."""
    path, output = write(tmp_path / "pairs.parquet", {50: SPIN}), tmp_path / "run"
    environment = environment_with_bugs(tmp_path / "site")
    started = command(path, output, "--max_record_seconds=600", *ENGINES[engine])
    with subprocess.Popen(
        interruptible(started), stderr=subprocess.PIPE, env={**environment, "RUN_OF": str(output)}, text=True
    ) as launcher:
        while not (output / "metrics").is_dir():
            assert launcher.poll() is None
            time.sleep(0.1)
        # Until the slow picture is being decoded.
        time.sleep(2)
        assert len(processes(output)) >= 2
        launcher.send_signal(number)
        signalled = time.monotonic()
        _, errors = launcher.communicate(timeout=60)
        took = time.monotonic() - signalled
    assert (launcher.returncode, errors) == (1, f"interrupted; the same command resumes {output}\n")
    # Two seconds on an idle machine.
    assert took < 10
    assert processes(output) == []


def processes(output: Path) -> list[int]:
    """The processes of the run that writes there."""
    mark = f"RUN_OF={output}".encode()
    found = []
    for directory in Path("/proc").iterdir():
        try:
            if directory.name.isdigit() and mark in (directory / "environ").read_bytes().split(b"\0"):
                found.append(int(directory.name))
        except OSError:
            # It ended in between, or is another user's.
            continue
    return found
