"""Runs that are killed, run out of disk or overlap, and are started again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.io.filesystems import FileSystems
from support import shards
from support.child_setup import interruptible
from support.pictures import encode, smooth

from pipeline.run import OK, main

pytestmark = pytest.mark.heavy

PAIRS, CHUNK_PAIRS = 96, 4


@pytest.fixture(scope="module")
def parquet(tmp_path_factory) -> Path:
    pairs = [
        {
            "id": str(number),
            "generated": encode(smooth(64, 64, number), "JPEG"),
            "target": encode(smooth(64, 64, number)),
        }
        for number in range(PAIRS)
    ]
    path = tmp_path_factory.mktemp("input") / "pairs.parquet"
    shards.write_parquet(path, pa.Table.from_pylist(pairs))
    return path


def arguments(parquet: Path, output: Path, *flags: str) -> list[str]:
    sizes = (f"--chunk_pairs={CHUNK_PAIRS}", "--batch_size=4")
    return ["--runner=DirectRunner", f"--input={parquet}", f"--output={output}", *sizes, *flags]


def start(*arguments: str, file_bytes: int | None = None) -> subprocess.Popen:
    """Start a run in a process of its own, for a test to break off."""
    command = interruptible([sys.executable, "-m", "pipeline.run", *arguments], file_bytes)
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def results(output: Path) -> list[pa.Table]:
    directories = [output / name for name in ("metrics", "optimized") if (output / name).exists()]
    return [pq.read_table(directory).sort_by("source") for directory in directories]


def modified(output: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (output / "metrics").glob("*.parquet")}


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(["--losses=lpips_vgg,ssim"], id="score"),
        pytest.param(
            ["--losses=mae,ssim", "--objective=mae + fd_l1", "--optimize", "--max_steps=40", "--patience=40"],
            id="optimize",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_killed_run_resumes(parquet, lpips_weights, tmp_path, capsys, flags):
    undisturbed, output = tmp_path / "undisturbed", tmp_path / "run"
    assert main(arguments(parquet, undisturbed, "--quiet", *flags)) == OK
    first = start(*arguments(parquet, output, *flags))
    deadline = time.monotonic() + 120
    while len(modified(output)) < 3:
        assert first.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    finished = modified(output)
    assert 3 <= len(finished) < PAIRS // CHUNK_PAIRS
    assert not (output / "_SUCCESS").exists()

    assert main(arguments(parquet, output, *flags)) == OK
    assert f"{len(finished)} chunks are done" in capsys.readouterr().err
    after = modified(output)
    assert {name: after[name] for name in finished} == finished
    assert results(output) == results(undisturbed)
    assert (output / "_SUCCESS").exists()
    assert not (output / "_temporary").exists()


def test_full_disk_breaks_off_with_one_message_and_resumes(parquet, tmp_path):
    output = tmp_path / "run"
    losses = "--losses=mae,mse,psnr,charbonnier,sobel_l1,sobel_l2,fd_l1,fd_l2,gdl,multiscale_fd,tv,gmsd,ssim"
    # There is room for run.json, but not for the metrics of so many losses.
    # --quiet, because on a busy machine progress would come before the error.
    run = start(*arguments(parquet, output, losses, "--quiet"), file_bytes=2_500)
    _, error = run.communicate()
    assert run.returncode == 1
    lines = error.splitlines()
    assert len(lines) == 2, error
    assert lines[0].startswith("error: the run broke off: ")
    assert "File too large" in lines[0]
    assert not modified(output)
    assert os.listdir(output / "_temporary") == ["listed.json"]

    assert main(arguments(parquet, output, losses, "--quiet")) == OK
    assert len(pq.read_table(output / "metrics")) == PAIRS


def test_two_runs_in_one_directory(parquet, tmp_path, monkeypatch):
    """A launcher is killed, its job goes on, and a second run of the same command ends first."""
    undisturbed, output = tmp_path / "undisturbed", tmp_path / "run"
    flags = [f"--input={parquet}", "--losses=mae", f"--chunk_pairs={CHUNK_PAIRS}", "--quiet"]
    assert main([*flags, f"--output={undisturbed}"]) == OK
    rename, written = FileSystems.rename, []

    def second_run_after_some_chunks(sources, targets):
        written.extend(targets)
        if len(written) == 5:
            assert main([*flags, f"--output={output}"]) == OK
            assert (output / "_SUCCESS").exists()
            assert not (output / "_temporary").exists()
        rename(sources, targets)

    monkeypatch.setattr(FileSystems, "rename", second_run_after_some_chunks)
    assert main([*flags, f"--output={output}"]) == OK
    # The first run failed to rename it, the second run renamed it, and the first tried again.
    assert written.count(written[4]) == 3
    assert results(output) == results(undisturbed)
    assert sorted(path.name for path in output.iterdir()) == sorted(path.name for path in undisturbed.iterdir())
