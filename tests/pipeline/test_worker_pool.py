"""The worker pool starts workers, and never stops one that another job may still need."""

import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

# Stands in for Beam's boot: it records its arguments and keeps running.
BOOT = """#!/bin/sh
echo "$@" >> {told}
exec sleep 600 >/dev/null 2>&1
"""


@pytest.fixture
def pool(tmp_path):
    boot = tmp_path / "boot"
    boot.write_text(BOOT.format(told=tmp_path / "told"))
    boot.chmod(0o755)
    command = [sys.executable, "-m", "pipeline.worker_pool", "--service_port=0", f"--container_executable={boot}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        yield process
        for worker in workers(process):
            subprocess.run(["kill", worker], check=False)
        process.kill()


def workers(pool: subprocess.Popen[str]) -> list[str]:
    lists = [path.read_text() for path in Path(f"/proc/{pool.pid}/task").glob("*/children")]
    return " ".join(lists).split()


@pytest.mark.heavy
def test_a_worker_outlives_the_stop_of_its_number(pool, tmp_path):
    address = pool.stdout.readline().split()[-1]
    request = beam_fn_api_pb2.StartWorkerRequest(worker_id="1-1")
    with grpc.insecure_channel(address) as channel:
        stub = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
        # Workers of two successive jobs, to which Flink gives the same id.
        assert [stub.StartWorker(request, timeout=60).error for _ in range(2)] == ["", ""]
        deadline = time.monotonic() + 60
        while not (tmp_path / "told").exists() or (tmp_path / "told").read_text().count("--id=1-1") < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        both = workers(pool)
        assert not stub.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="1-1"), timeout=60).error
    assert len(both) == 2
    assert workers(pool) == both
