"""Runs on Flink on several hosts give the rows of an undisturbed run, whatever happens to hosts, links and the store.

They take minutes, because an outage lasts until Flink or the store's client gives up: `python -m pytest -m hosts`.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from support import flink_jobs, shards
from support.pictures import encode, smooth
from support.required import missing
from support.stores import put

from deploy.flink.compare import metrics, same_table
from deploy.flink.hosts import Hosts, hosts, missing_for_hosts
from deploy.flink.processes import wait_until
from pipeline.run import CRASH, OK, main
from transforms.storage import s3
from transforms.storage.run_files import RunFiles, list_times

pytestmark = [pytest.mark.flink, pytest.mark.hosts, pytest.mark.slow]

# So many and so large that something can happen to a run before it ends.
PAIRS, CHUNK_PAIRS, SIZE = 240, 4, (128, 128)
SCORE = ("--losses=lpips_vgg,sobel_l1", f"--chunk_pairs={CHUNK_PAIRS}", "--batch_size=4")
SLOTS = 2
# As long as the program waits for a store that refuses, and longer than boto3 waits for a connection.
OUTAGE_SECONDS = 90


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Hosts]:
    """The hosts, with pairs in the store."""
    if lacking := missing_for_hosts():
        missing("hosts", lacking)
    pairs = [
        {"id": str(n), "generated": encode(smooth(*SIZE, n), "JPEG"), "target": encode(smooth(*SIZE, n))}
        for n in range(PAIRS)
    ]
    path = shards.write_parquet(tmp_path_factory.mktemp("input") / "pairs.parquet", pa.Table.from_pylist(pairs)).path
    # A process keeps its client, which belongs to another server.
    s3._new_client.cache_clear()
    with hosts(SLOTS) as running:
        put(f"{running.bucket}/pairs.parquet", Path(path).read_bytes())
        yield running
    s3._new_client.cache_clear()


@pytest.fixture(scope="module")
def undisturbed(running, lpips_weights) -> pa.Table:
    """The metrics of `SCORE` without Flink."""
    output = f"{running.bucket}/undisturbed"
    assert main([f"--input={running.bucket}/pairs.parquet", f"--output={output}", "--quiet", *SCORE]) == OK
    return metrics(output)


@pytest.fixture
def output(running, request) -> Iterator[str]:
    """A directory in the store; after the test the cluster is whole again and idle."""
    yield f"{running.bucket}/{request.node.name}"
    wait_for_slots(running, SLOTS * len(running.task_hosts))
    flink_jobs.wait_for_silence(running.cluster)


@pytest.fixture
def log(tmp_path) -> Path:
    """The file with the output of the run's launchers."""
    return tmp_path / "launcher.log"


def start(running: Hosts, output: str, log: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "pipeline.run", f"--input={running.bucket}/pairs.parquet", f"--output={output}"]
    # A slot on each host.
    return running.cluster.start([*command, *SCORE, *running.cluster.flags(parallelism=2)], log)


def chunks(output: str) -> dict[str, float]:
    """When each chunk of the run was finished."""
    return dict(list_times(RunFiles(output).metrics_directory))


def wait_for_chunks(launcher: subprocess.Popen, output: str, log: Path, number: int = 3) -> dict[str, float]:
    """The finished chunks, once there are so many; the run still goes on."""
    assert wait_until(lambda: launcher.poll() is not None or len(chunks(output)) >= number, flink_jobs.PATIENCE)
    assert launcher.poll() is None, log.read_text()
    return chunks(output)


def wait_for_slots(running: Hosts, number: int) -> None:
    assert wait_until(lambda: running.cluster.ask("/overview")["slots-total"] == number, flink_jobs.PATIENCE)


def finish(launcher: subprocess.Popen, log: Path) -> None:
    assert launcher.wait(2 * flink_jobs.PATIENCE) == OK, log.read_text()


def test_both_hosts_take_part(running, undisturbed, output, log):
    finish(start(running, output, log), log)
    assert same_table(metrics(output), undisturbed)
    assert flink_jobs.addresses(running.cluster) == {host.address for host in running.task_hosts}


def test_a_host_is_cut_off_and_comes_back(running, undisturbed, output, log):
    launcher = start(running, output, log)
    finished = wait_for_chunks(launcher, output, log)
    running.network.cut(running.task_hosts[0])
    wait_for_slots(running, SLOTS)
    running.network.mend(running.task_hosts[0])
    finish(launcher, log)
    assert same_table(metrics(output), undisturbed)
    assert chunks(output).items() >= finished.items()


def test_the_store_cannot_be_reached_for_a_while(running, undisturbed, output, log):
    launcher = start(running, output, log)
    finished = wait_for_chunks(launcher, output, log)
    running.network.cut(running.store)
    assert not wait_until(lambda: launcher.poll() is not None, OUTAGE_SECONDS), log.read_text()
    running.network.mend(running.store)
    finish(launcher, log)
    assert same_table(metrics(output), undisturbed)
    assert chunks(output).items() >= finished.items()


def test_a_link_becomes_slow(running, undisturbed, output, log):
    launcher = start(running, output, log)
    # Before its first chunk, a TaskManager fetches the job's 157 MB of jars.
    wait_for_chunks(launcher, output, log, 1)
    running.network.slow(running.task_hosts[0], kbit=2000)
    try:
        finish(launcher, log)
    finally:
        running.network.unslow(running.task_hosts[0])
    assert same_table(metrics(output), undisturbed)


def test_the_job_manager_is_killed_and_the_same_command_resumes(running, undisturbed, output, log):
    launcher = start(running, output, log)
    finished = wait_for_chunks(launcher, output, log)
    running.cluster.kill_job_manager()
    assert launcher.wait(flink_jobs.PATIENCE) == CRASH
    assert "The same command resumes it" in log.read_text()
    running.cluster.start_job_manager()
    wait_for_slots(running, SLOTS * len(running.task_hosts))
    finish(start(running, output, log), log)
    assert same_table(metrics(output), undisturbed)
    assert chunks(output).items() >= finished.items()
