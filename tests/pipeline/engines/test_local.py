"""Several workers on this machine give the rows of one, share its threads, and leave no process behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import DirectOptions
from support import containers, shards
from support.bombs import SPIN, environment_with_bugs
from support.pictures import encode, smooth

from pipeline.console import counts, progress
from pipeline.engines.engine import beam_options, check_engine
from pipeline.errors import UsageError
from pipeline.parse import parse
from pipeline.run import CRASH, OK, main
from transforms.worker import threads

pytestmark = pytest.mark.heavy

SIZES = [(40, 56), (64, 64), (33, 70)]
PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
# Seconds that anything here may take on a slow, busy machine.
PATIENCE = 240.0
THREADS = ("--direct_running_mode=multi_threading", "--direct_num_workers=2")


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, str | bytes]]:
    pairs: list[dict[str, str | bytes]] = []
    for number in range(24):
        target = smooth(*SIZES[number % len(SIZES)], shift=number)
        generated = encode(target, "JPEG", quality=20 + number)
        pairs.append({"id": f"pair/{number}", "generated": generated, "target": encode(target)})
    return pairs


@pytest.fixture(scope="module")
def parquet(pairs, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("input") / "pairs.parquet"
    shards.write_parquet(path, pa.Table.from_pylist(pairs))
    return path


def tables(output: Path) -> list[pa.Table]:
    directories = [output / name for name in ("metrics", "optimized") if (output / name).exists()]
    return [pq.read_table(directory).sort_by("source") for directory in directories]


def score(parquet: Path, output: Path, *flags: str) -> list[pa.Table]:
    assert main([f"--input={parquet}", f"--output={output}", "--chunk_pairs=4", *flags]) == OK
    return tables(output)


class TestSameRows:
    SCORE = ("--losses=lpips_vgg,ssim,sobel_l1",)
    OPTIMIZE = (*SCORE, "--objective=mae + fd_l1", "--optimize", "--max_steps=3")

    @pytest.fixture(
        scope="class", params=[SCORE, pytest.param(OPTIMIZE, marks=pytest.mark.slow)], ids=["score", "optimize"]
    )
    def flags(self, request) -> tuple[str, ...]:
        return request.param

    @pytest.fixture(scope="class")
    def one(self, flags, parquet, lpips_weights, tmp_path_factory) -> list[pa.Table]:
        return score(parquet, tmp_path_factory.mktemp("one") / "run", "--quiet", *flags)

    def test_processes(self, flags, one, parquet, tmp_path, capfd, monkeypatch):
        monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0.02)
        # Look often enough to see a chunk before the run ends, even on a busy machine.
        monkeypatch.setattr(counts, "_LEAST_PAUSE_SECONDS", 0.02)
        monkeypatch.setattr(counts, "_PAUSES_PER_LOOK", 1)
        assert score(parquet, tmp_path / "run", *flags, *PROCESSES) == one
        assert [table.num_rows for table in one] == [24] * len(one)
        assert len(one) == 1 + ("--optimize" in flags)
        performance = json.loads((tmp_path / "run" / "run.json").read_text())["performance"]
        assert (performance["pairs"], performance["workers"]) == (24, 1)
        assert performance["seconds"]["optimizing" if "--optimize" in flags else "network"] > 0
        lines = capfd.readouterr().err.splitlines()
        assert lines[0] == "listing the pairs"
        assert "0 of 24 pairs" in lines
        done = [int(line.split()[0]) for line in lines if " of 24 pairs" in line]
        assert done == sorted(done)
        assert done[-1] > 0

    def test_threads(self, flags, one, parquet, tmp_path):
        assert score(parquet, tmp_path / "run", "--quiet", *flags, *THREADS) == one


@pytest.mark.slow
@pytest.mark.parametrize("container", ["zip", "tar"])
def test_processes_read_image_files(pairs, tmp_path, container):
    containers.write_containers(tmp_path, [pair | {"id": str(number)} for number, pair in enumerate(pairs)])
    flags = [*containers.flags(tmp_path, container), "--losses=ssim,sobel_l1", "--chunk_pairs=4", "--quiet"]
    assert main([*flags, f"--output={tmp_path}/one"]) == OK
    assert main([*flags, f"--output={tmp_path}/two", *PROCESSES]) == OK
    one, two = (tables(tmp_path / name) for name in ("one", "two"))
    assert one == two
    assert one[0].num_rows == len(pairs)


class TestKilledWorker:
    """The run would not end for ten minutes, because one picture takes so long; test_poison.py has Ctrl-C."""

    @staticmethod
    @contextmanager
    def run(directory: Path) -> Iterator[subprocess.Popen[str]]:
        picture = encode(smooth(24, 32))
        pairs = [{"generated": SPIN if number == 3 else picture, "target": picture} for number in range(6)]
        path = directory / "pairs.parquet"
        shards.write_parquet(path, pa.Table.from_pylist(pairs))
        command = [sys.executable, "-m", "pipeline.run", f"--input={path}", f"--output={directory}/run", "--losses=mae"]
        launcher = subprocess.Popen(
            [*command, "--chunk_pairs=1", "--max_record_seconds=600", *PROCESSES],
            env=environment_with_bugs(directory / "site"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield launcher
        finally:
            launcher.kill()
            launcher.communicate()

    @staticmethod
    def workers(launcher: subprocess.Popen[str]) -> list[int]:
        """Wait until both workers have started, and return their process ids."""
        deadline = time.monotonic() + PATIENCE
        while True:
            assert launcher.poll() is None
            assert time.monotonic() < deadline
            lists = [path.read_text() for path in Path(f"/proc/{launcher.pid}/task").glob("*/children")]
            children = [int(child) for child in " ".join(lists).split()]
            found = [child for child in children if b"sdk_worker_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
            if len(found) == 2:
                return found
            time.sleep(0.02)

    @pytest.mark.parametrize("at_work", [False, True], ids=["as it starts", "at work"])
    def test_is_told(self, tmp_path, at_work):
        with self.run(tmp_path) as launcher:
            workers = self.workers(launcher)
            variables = Path(f"/proc/{workers[0]}/environ").read_text().split("\0")
            while at_work and not (tmp_path / "site" / "spinning").exists():
                assert launcher.poll() is None
                time.sleep(0.05)
            os.kill(workers[0], signal.SIGKILL)
            _, error = launcher.communicate(timeout=PATIENCE)
            assert launcher.returncode == CRASH
        first, second = (line for line in error.splitlines() if " pairs" not in line)
        # The workers share the threads of the machine.
        assert f"{threads.VARIABLE}={max(1, threads.thread_count() // 2)}" in variables
        assert first.startswith("error: the run broke off: a worker process was killed (SIGKILL)")
        assert "--direct_num_workers" in first
        assert second.startswith("The same command resumes it")
        assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
        assert not (tmp_path / "run" / "_SUCCESS").exists()


def checked(*flags: str):
    config = parse(["--input=in", "--output=out", *flags])
    options = beam_options(config.beam_flags)
    check_engine(options, config)
    return options


class TestFlags:
    @pytest.mark.parametrize(("number", "workers"), [(0, 6), (1, 1), (3, 3)])
    def test_number_of_workers(self, monkeypatch, number, workers):
        monkeypatch.setattr(threads, "available_cpus", lambda: 6)
        options = checked("--direct_running_mode=multi_processing", f"--direct_num_workers={number}")
        assert options.view_as(DirectOptions).direct_num_workers == workers

    @pytest.mark.parametrize(
        ("flags", "told"),
        [
            (["--direct_num_workers=2"], ["--direct_num_workers=2", "multi_processing"]),
            (["--direct_num_workers=0"], ["--direct_num_workers=0", "multi_processing"]),
            ([PROCESSES[0], "--direct_num_workers=-1"], ["--direct_num_workers=-1", "negative"]),
        ],
        ids=str,
    )
    def test_wrong(self, flags, told):
        with pytest.raises(UsageError) as caught:
            checked(*flags)
        assert [part for part in told if part not in str(caught.value)] == []

    def test_other_engines_have_workers_of_their_own(self):
        checked("--runner=PrismRunner", "--direct_num_workers=2")
