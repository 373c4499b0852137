"""Apache Flink, by way of Beam's job server or of a jar that carries the job."""

import http.client
import json
import os
import re
import shutil
import urllib.request
from urllib.parse import urlsplit

from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions
from apache_beam.runners.portability.flink_runner import MAGIC_HOST_NAMES, FlinkRunner
from apache_beam.runners.runner import PipelineResult
from apache_beam.utils.subprocess_server import JavaHelper

from pipeline.config import Config
from pipeline.engines.workers_elsewhere import SECONDS_TO_CONNECT, check_workers, is_remote_path, work_in_launcher
from pipeline.errors import UsageError


def check(options: PipelineOptions, config: Config) -> None:
    """Check that the cluster answers, that the job server fits it, and that its workers have the program.

    Raises:
        UsageError: one of these checks fails.
    """
    flink = options.view_as(FlinkRunnerOptions)
    if (jar := flink.flink_job_server_jar) and not is_remote_path(jar) and not os.path.exists(jar):
        raise UsageError(f"--flink_job_server_jar={jar}: the file does not exist")
    if not shutil.which(JavaHelper.get_java()) and not flink.flink_submit_uber_jar:
        raise UsageError("Beam's Flink job server needs Java: install it, or give --flink_submit_uber_jar")
    if flink.flink_master in MAGIC_HOST_NAMES:
        return
    url = FlinkRunner.add_http_scheme(flink.flink_master)
    cluster = _flink_version_at(url, flink.flink_master)
    if jar:
        named = re.search(r"flink[-_](\d+\.\d+)", os.path.basename(jar))
        expected, remedy = named and named[1], f"give a --flink_job_server_jar made for Flink {cluster}"
    else:
        # The uber jar's maker asks the cluster itself.
        expected = None if flink.flink_submit_uber_jar else flink.flink_version
        remedy = f"give --flink_version={cluster}"
    if cluster not in flink.PUBLISHED_FLINK_VERSIONS:
        known = ", ".join(flink.PUBLISHED_FLINK_VERSIONS)
        raise UsageError(f"--flink_master={flink.flink_master} is Flink {cluster}; this Apache Beam knows {known}")
    if expected and expected != cluster:
        raise UsageError(
            f"--flink_master={flink.flink_master} is Flink {cluster}, the job server is for {expected}: {remedy}"
        )
    check_workers(options, urlsplit(url).hostname or "")


def where(options: PipelineOptions, result: PipelineResult) -> str:
    """The cluster; empty if it ends with the launcher, or its workers do."""
    master = options.view_as(FlinkRunnerOptions).flink_master
    return "" if master in MAGIC_HOST_NAMES or work_in_launcher(options) else f"Flink at {master}"


def _flink_version_at(url: str, given: str) -> str:
    """Major and minor version of the cluster, such as `1.19`."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/v1/config", timeout=SECONDS_TO_CONNECT) as answer:
            version: str = json.load(answer)["flink-version"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "reason", error)
        raise UsageError(
            f"no Flink answers at --flink_master={given} ({type(error).__name__}: {reason}); give HOST:PORT of the "
            "JobManager's REST interface, by default port 8081, and see that the cluster runs"
        ) from error
    return ".".join(version.split(".")[:2])
