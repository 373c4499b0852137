"""Runs on a Flink cluster for the tests: start, watch, count."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners.portability.portable_metrics import from_monitoring_infos
from google.protobuf import json_format

from deploy.flink.processes import wait_until
from deploy.flink.session_cluster import SessionCluster
from transforms.worker.counters import NAMESPACE

# Of a slow machine that is busy besides.
PATIENCE = 240.0


def start(cluster: SessionCluster, output: Path, *arguments: str, uber_jar: bool = False) -> subprocess.Popen:
    """Start a launcher on the cluster; two runs find room there at once. What it tells is in a file beside `output`."""
    command = [sys.executable, "-m", "pipeline.run", f"--output={output}", *arguments]
    return cluster.start([*command, *cluster.flags(uber_jar, parallelism=2)], told(output))


def told(output: Path) -> Path:
    """The file with what the launchers of this run told."""
    return output.with_suffix(".log")


def finish(launcher: subprocess.Popen, output: Path) -> None:
    """Wait for the run's end, which must be a good one."""
    code = launcher.wait(PATIENCE)
    assert code == 0, told(output).read_text()


def chunks(output: Path) -> dict[str, int]:
    """When each chunk of the run was finished."""
    return {path.name: path.stat().st_mtime_ns for path in (output / "metrics").glob("*.parquet")}


def wait_for_chunks(launcher: subprocess.Popen, output: Path, number: int) -> None:
    """Wait until the run has so many chunks, while it goes on."""
    assert wait_until(lambda: launcher.poll() is not None or len(chunks(output)) >= number, PATIENCE, each=0.005)
    assert launcher.poll() is None, told(output).read_text()


def wait_for_silence(cluster: SessionCluster) -> None:
    """Wait until no job runs, those without a launcher among them."""
    assert wait_until(lambda: all(job["end-time"] > 0 for job in jobs(cluster)), PATIENCE)


def jobs(cluster: SessionCluster) -> list[dict]:
    """The cluster's jobs, the latest first."""
    return sorted(cluster.ask("/jobs/overview")["jobs"], key=lambda job: -job["start-time"])


def failures(cluster: SessionCluster, latest: int) -> list[str]:
    """Why those of the latest jobs ended that did not finish."""
    failed = [job["jid"] for job in jobs(cluster)[:latest] if job["state"] != "FINISHED"]
    return [cluster.ask(f"/jobs/{job}/exceptions")["root-exception"] for job in failed]


def counted(cluster: SessionCluster) -> Counter[str]:
    """Our counters of the latest job: those of the last try of each of its steps."""
    totals: Counter[str] = Counter()
    for accumulator in cluster.ask(f"/jobs/{jobs(cluster)[0]['jid']}/accumulators")["user-task-accumulators"]:
        if accumulator["name"] == "__metricscontainers":
            answer = json_format.Parse(accumulator["value"], beam_job_api_pb2.GetJobMetricsResponse())
            counters, *_ = from_monitoring_infos(answer.metrics.attempted)
            for key, number in counters.items():
                if key.metric.namespace == NAMESPACE:
                    totals[key.metric.name] += number
    return totals
