"""Runs on a real Flink cluster give the same rows as without Flink, even if processes are killed."""

import json
import os
import signal
from pathlib import Path

import pyarrow as pa
import pytest
from support import containers, flink_jobs, shards
from support.pictures import encode, smooth
from support.required import missing

from deploy.flink.compare import metrics, same_table
from deploy.flink.downloads import missing_tools
from deploy.flink.processes import wait_until
from deploy.flink.session_cluster import SessionCluster
from pipeline.run import OK, main

pytestmark = [pytest.mark.flink, pytest.mark.slow]

PAIRS, CHUNK_PAIRS = 64, 4
SCORE = ("--losses=lpips_vgg,sobel_l1", f"--chunk_pairs={CHUNK_PAIRS}", "--batch_size=4")
OPTIMIZE = ("--losses=mae,ssim", "--objective=mae + fd_l1", "--optimize", "--max_steps=5", "--chunk_pairs=16")


@pytest.fixture(scope="module")
def cluster():
    if tools := missing_tools():
        missing("flink", tools)
    # Enough slots for a job whose launcher was killed and for the job that resumes it.
    with SessionCluster(slots=4) as cluster:
        yield cluster


def make_pairs(count: int) -> list[dict[str, str | bytes]]:
    return [
        {"id": str(n), "generated": encode(smooth(64, 64, n), "JPEG"), "target": encode(smooth(64, 64, n))}
        for n in range(count)
    ]


def write(directory: Path, count: int) -> str:
    shards.write_parquet(directory / "pairs.parquet", pa.Table.from_pylist(make_pairs(count)))
    return f"--input={directory}/pairs.parquet"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> str:
    """So many that something can happen to a run before it ends."""
    return write(tmp_path_factory.mktemp("input"), PAIRS)


def score_directly(output: Path, *arguments: str) -> pa.Table:
    assert main([f"--output={output}", "--quiet", *arguments]) == OK
    return metrics(output)


@pytest.fixture(scope="module")
def scored(pairs, lpips_weights, tmp_path_factory) -> pa.Table:
    """The metrics of `SCORE` without Flink."""
    return score_directly(tmp_path_factory.mktemp("direct") / "run", pairs, *SCORE)


# The launcher talks to Flink through Beam's job server or, with the uber jar, directly.
WAYS = pytest.mark.parametrize("uber_jar", [False, True], ids=["job_server", "uber_jar"])


@WAYS
def test_scores_the_same_bits(cluster, lpips_weights, tmp_path, uber_jar):
    few = 6 * CHUNK_PAIRS
    output, arguments = tmp_path / "run", (write(tmp_path, few), *SCORE)
    scored = score_directly(tmp_path / "direct", *arguments)
    flink_jobs.finish(flink_jobs.start(cluster, output, *arguments, uber_jar=uber_jar), output)
    assert same_table(metrics(output), scored)
    assert (output / "_SUCCESS").exists()
    performance = json.loads((output / "run.json").read_text())["performance"]
    assert performance["pairs"] == few
    assert performance["seconds"]["network"] > 0
    counts = flink_jobs.counted(cluster)
    assert (counts["pairs_listed"], counts["pairs_scored"]) == (few, few)
    assert (counts["chunks_written"], counts["chunks_found_done"]) == (6, 0)


@pytest.mark.parametrize("container", ["folders", "tar"])
def test_scores_image_files(cluster, tmp_path, container):
    containers.write_containers(tmp_path, make_pairs(6 * CHUNK_PAIRS))
    output = tmp_path / "run"
    arguments = (*containers.flags(tmp_path, container), "--losses=mae,sobel_l1", f"--chunk_pairs={CHUNK_PAIRS}")
    flink_jobs.finish(flink_jobs.start(cluster, output, *arguments), output)
    assert same_table(metrics(output), score_directly(tmp_path / "direct", *arguments))
    assert (output / "_SUCCESS").exists()


def test_optimizes_the_same_bits(cluster, pairs, tmp_path):
    output, direct = tmp_path / "run", tmp_path / "direct"
    expected = score_directly(direct, pairs, *OPTIMIZE)
    flink_jobs.finish(flink_jobs.start(cluster, output, pairs, *OPTIMIZE), output)
    assert same_table(metrics(output), expected)
    images = [sorted((run / "optimized").iterdir()) for run in (output, direct)]
    assert [path.name for path in images[0]] == [path.name for path in images[1]]
    assert [path.read_bytes() for path in images[0]] == [path.read_bytes() for path in images[1]]


def kill_task_manager(cluster: SessionCluster) -> None:
    cluster.kill_task_manager()
    cluster.start_task_manager()


def kill_worker(cluster: SessionCluster) -> None:
    for worker in cluster.workers():
        os.kill(worker.pid, signal.SIGKILL)


@pytest.mark.parametrize("kill", [kill_task_manager, kill_worker])
def test_lost_process_costs_no_finished_chunk(cluster, pairs, scored, tmp_path, kill):
    output = tmp_path / "run"
    launcher = flink_jobs.start(cluster, output, pairs, *SCORE)
    flink_jobs.wait_for_chunks(launcher, output, 3)
    finished = flink_jobs.chunks(output)
    kill(cluster)
    flink_jobs.finish(launcher, output)
    assert same_table(metrics(output), scored)
    assert flink_jobs.chunks(output).items() >= finished.items()
    counts = flink_jobs.counted(cluster)
    assert counts["chunks_found_done"] >= len(finished)
    assert counts["chunks_found_done"] + counts["chunks_written"] == PAIRS // CHUNK_PAIRS


@WAYS
def test_lost_launcher_is_resumed_while_its_job_goes_on(cluster, pairs, scored, tmp_path, uber_jar):
    output = tmp_path / "run"
    launcher = flink_jobs.start(cluster, output, pairs, *SCORE, uber_jar=uber_jar)
    flink_jobs.wait_for_chunks(launcher, output, 3)
    launcher.kill()
    launcher.wait()
    # Stop the worker, so that the job does not end before the run is resumed.
    (worker,) = cluster.workers()
    os.kill(worker.pid, signal.SIGSTOP)
    finished = flink_jobs.chunks(output)

    resumed = flink_jobs.start(cluster, output, pairs, *SCORE, uber_jar=uber_jar)
    assert wait_until(lambda: len(flink_jobs.chunks(output)) > len(finished) or resumed.poll() is not None, 240)
    os.kill(worker.pid, signal.SIGCONT)
    flink_jobs.finish(resumed, output)
    assert f"{len(finished)} chunks are done" in flink_jobs.log_of(output).read_text()
    assert flink_jobs.counted(cluster)["chunks_found_done"] >= len(finished)

    flink_jobs.wait_for_silence(cluster)
    assert flink_jobs.failures(cluster, latest=1) == []
    # The abandoned job finds the directory claimed by the launcher that resumed it, and ends.
    assert [failure for failure in flink_jobs.failures(cluster, latest=2) if "has taken" not in failure] == []
    assert same_table(metrics(output), scored)
    assert flink_jobs.chunks(output).items() >= finished.items()
    assert (output / "_SUCCESS").exists()
    # The abandoned job may have been writing a file when it was stopped, and have made its directory again.
    assert [path for path in output.glob("_temporary/**/*") if path.is_file()] == []
