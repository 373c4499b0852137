"""Start, watch and count runs on a Flink cluster."""

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

# Seconds that a run may take on a slow, busy machine.
PATIENCE = 240.0


def start(cluster: SessionCluster, output: Path, *arguments: str, uber_jar: bool = False) -> subprocess.Popen:
    """Start a launcher whose output goes to `log_of(output)`; the cluster has room for two runs at once."""
    command = [sys.executable, "-m", "pipeline.run", f"--output={output}", *arguments]
    return cluster.start([*command, *cluster.flags(uber_jar, parallelism=2)], log_of(output))


def log_of(output: Path) -> Path:
    """The file with the output of the run's launchers."""
    return output.with_suffix(".log")


def finish(launcher: subprocess.Popen, output: Path) -> None:
    """Wait until the run ends, and assert that it succeeded."""
    code = launcher.wait(PATIENCE)
    assert code == 0, log_of(output).read_text()


def chunks(output: Path) -> dict[str, int]:
    """The time at which each chunk of the run was finished, in nanoseconds."""
    return {path.name: path.stat().st_mtime_ns for path in (output / "metrics").glob("*.parquet")}


def wait_for_chunks(launcher: subprocess.Popen, output: Path, number: int) -> None:
    """Wait until the run has finished this many chunks, and assert that it still goes on."""
    assert wait_until(lambda: launcher.poll() is not None or len(chunks(output)) >= number, PATIENCE, each=0.005)
    assert launcher.poll() is None, log_of(output).read_text()


def wait_for_silence(cluster: SessionCluster) -> None:
    """Wait until no job runs, including jobs whose launcher was killed."""
    assert wait_until(lambda: all(job["end-time"] > 0 for job in jobs(cluster)), PATIENCE)


def jobs(cluster: SessionCluster) -> list[dict]:
    """The cluster's jobs, latest first."""
    return sorted(cluster.ask("/jobs/overview")["jobs"], key=lambda job: -job["start-time"])


def failures(cluster: SessionCluster, latest: int) -> list[str]:
    """The root exceptions of those of the latest jobs that did not finish."""
    failed = [job["jid"] for job in jobs(cluster)[:latest] if job["state"] != "FINISHED"]
    return [cluster.ask(f"/jobs/{job}/exceptions")["root-exception"] for job in failed]


def addresses(cluster: SessionCluster) -> set[str]:
    """The addresses of the TaskManagers that took part in the latest job."""
    job = f"/jobs/{jobs(cluster)[0]['jid']}"
    vertices = [f"{job}/vertices/{vertex['id']}/taskmanagers" for vertex in cluster.ask(job)["vertices"]]
    found = [manager for vertex in vertices for manager in cluster.ask(vertex)["taskmanagers"]]
    return {manager["endpoint"].partition(":")[0] for manager in found}


def counted(cluster: SessionCluster) -> Counter[str]:
    """Our counters of the latest job, from the last attempt of each step."""
    totals: Counter[str] = Counter()
    for accumulator in cluster.ask(f"/jobs/{jobs(cluster)[0]['jid']}/accumulators")["user-task-accumulators"]:
        if accumulator["name"] == "__metricscontainers":
            answer = json_format.Parse(accumulator["value"], beam_job_api_pb2.GetJobMetricsResponse())
            counters, *_ = from_monitoring_infos(answer.metrics.attempted)
            for key, number in counters.items():
                if key.metric.namespace == NAMESPACE:
                    totals[key.metric.name] += number
    return totals
