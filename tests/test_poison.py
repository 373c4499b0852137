"""Records that crash their process, hang or take all memory, among good ones: they fail alone, and the run goes on."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import flink_jobs, shards
from support.bombs import SEGFAULT, SPIN, environment_with_bugs, huge_png, npz
from support.child_setup import interruptible
from support.containers import CONTAINERS, flags, write_containers
from support.pictures import encode, smooth
from support.required import missing, prism_binary

from deploy.flink.downloads import missing_tools
from deploy.flink.session_cluster import SessionCluster
from pipeline.errors import OK
from pipeline.run import main

PAIRS = 60
LIMITS = ["--max_record_seconds=1", f"--max_record_memory={150 << 20}", "--max_image_pixels=1000000000"]
ENGINES = {"in process": [], "two processes": ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]}
# Containers of arrays, and those that stand for the others in `make test`.
ARRAYS, QUICK = ("arrays folders", "arrays parquet"), ("parquet",)
SIDE = 8000
POISON = {7: SEGFAULT, 25: SPIN, 26: huge_png(SIDE), 59: SEGFAULT}
IMAGE, ARRAY = encode(smooth(24, 32)), npz(smooth(24, 32))
POISONOUS_ARRAYS = {
    7: ARRAY + b"SEGFAULT",
    25: ARRAY + b"SPIN",
    26: npz(np.zeros((SIDE, SIDE), np.uint8)),
    59: SEGFAULT,
}


def pairs(poison: dict[int, bytes], good: bytes = IMAGE) -> list[dict[str, str | bytes]]:
    return [{"id": str(number), "generated": poison.get(number, good), "target": good} for number in range(PAIRS)]


def write(path: Path, poison: dict[int, bytes]) -> Path:
    shards.write_parquet(path, pa.Table.from_pylist(pairs(poison)))
    return path


def arguments(path: Path, output: Path, *flags: str) -> list[str]:
    return [f"--input={path}", *options(output), *flags]


def options(output: Path) -> list[str]:
    return [f"--output={output}", "--preset=edges", "--quiet", "--chunk_pairs=20"]


def check(output: Path) -> None:
    """Every pair was scored but the poisonous ones, which failed each with its reason."""
    assert len(pq.read_table(output / "metrics")) == PAIRS - len(POISON)
    lines = [line for file in (output / "failures").iterdir() for line in file.read_text().splitlines()]
    failures = {row["id"]: (row["stage"], row["reason"]) for row in map(json.loads, lines)}
    reasons = {"7": "crashed", "25": "timed_out", "26": "out_of_memory", "59": "crashed"}
    assert failures == {id: ("decode", reason) for id, reason in reasons.items()}


@pytest.fixture
def bugs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-ins are deadly in every process that is started."""
    # Workers take the environment, and children of a sandbox the path.
    monkeypatch.setenv("PYTHONPATH", environment_with_bugs(tmp_path / "site")["PYTHONPATH"])
    monkeypatch.syspath_prepend(tmp_path / "site")


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, ...]]:
    """Per container the flags that read the poisonous pairs from it."""
    root = tmp_path_factory.mktemp("containers")
    write_containers(root, pairs(POISON))
    write_containers(root / "arrays", pairs(POISONOUS_ARRAYS, ARRAY), "npz")
    found = {name: flags(root, name) for name in CONTAINERS}
    return found | {name: (*flags(root / "arrays", name.split()[1]), "--range=0..255") for name in ARRAYS}


@pytest.mark.heavy
@pytest.mark.parametrize(
    "container",
    [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in (*CONTAINERS, *ARRAYS)],
)
@pytest.mark.usefixtures("bugs")
def test_each_poison_fails_alone(
    tmp_path: Path, container: str, containers: dict[str, tuple[str, ...]], capfd: pytest.CaptureFixture[str]
) -> None:
    run = [*containers[container], *options(tmp_path / "run"), *LIMITS]
    assert (main(run), capfd.readouterr().err) == (OK, "")
    check(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["two processes", "prism"])
@pytest.mark.usefixtures("bugs")
def test_each_poison_fails_alone_on_engines(tmp_path: Path, engine: str, capfd: pytest.CaptureFixture[str]) -> None:
    flags = [f"--prism_location={prism_binary()}"] if engine == "prism" else ENGINES[engine]
    path, output = write(tmp_path / "pairs.parquet", POISON), tmp_path / "run"
    assert (main(arguments(path, output, *LIMITS, *flags)), capfd.readouterr().err) == (OK, "")
    check(output)


@pytest.mark.slow
@pytest.mark.flink
def test_each_poison_fails_alone_on_flink(tmp_path: Path) -> None:
    if tools := missing_tools():
        missing("flink", tools)
    path, output = write(tmp_path / "pairs.parquet", POISON), tmp_path / "run"
    variables = {"PYTHONPATH": environment_with_bugs(tmp_path / "site")["PYTHONPATH"]}
    with SessionCluster(slots=1, variables=variables) as cluster:
        flags = [*LIMITS, *cluster.flags(False, parallelism=1)]
        command = [sys.executable, "-m", "pipeline.run", *arguments(path, output, *flags)]
        launcher = cluster.start(command, flink_jobs.log_of(output))
        flink_jobs.finish(launcher, output)
    check(output)


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    ("engine", "number"),
    [
        pytest.param("in process", signal.SIGINT, marks=pytest.mark.slow),
        ("in process", signal.SIGTERM),
        pytest.param("two processes", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("two processes", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_a_run_that_is_busy(tmp_path: Path, engine: str, number: signal.Signals) -> None:
    """At once, although a picture takes minutes, and nothing of it is left."""
    path, output = write(tmp_path / "pairs.parquet", {50: SPIN}), tmp_path / "run"
    environment = environment_with_bugs(tmp_path / "site")
    run = [sys.executable, "-m", "pipeline.run", *arguments(path, output, "--max_record_seconds=600", *ENGINES[engine])]
    with subprocess.Popen(
        interruptible(run), stderr=subprocess.PIPE, env={**environment, "RUN_OF": str(output)}, text=True
    ) as launcher:
        while not (tmp_path / "site" / "spinning").exists():
            assert launcher.poll() is None
            time.sleep(0.05)
        assert len(processes(output)) >= 2
        launcher.send_signal(number)
        # Two seconds on an idle machine; the picture alone would take ten minutes of CPU time.
        _, errors = launcher.communicate(timeout=120)
    assert (launcher.returncode, errors) == (1, f"interrupted; the same command resumes {output}\n")
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
