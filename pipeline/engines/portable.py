"""Any engine behind a Beam job server (PortableRunner), and Prism, Beam's local engine in Go."""

import os

from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions, PrismRunnerOptions
from apache_beam.runners.runner import PipelineResult

from pipeline.config import Config
from pipeline.engines.workers_elsewhere import (
    check_connection,
    check_workers,
    host_of,
    is_remote_path,
    work_in_launcher,
)
from pipeline.errors import UsageError


def check(options: PipelineOptions, config: Config) -> None:
    """Check that the job server answers and that its workers have the program.

    Raises:
        UsageError: it does not, or they do not.
    """
    endpoint = options.view_as(PortableOptions).job_endpoint
    if not endpoint:
        raise UsageError("--runner=PortableRunner needs --job_endpoint=HOST:PORT, or embed for one in this process")
    if endpoint == "embed":
        return
    check_connection(endpoint, f"no job server answers at --job_endpoint={endpoint}")
    check_workers(options, host_of(endpoint))


def where(options: PipelineOptions, result: PipelineResult) -> str:
    """The job server; empty if it is in this process, or its workers are."""
    endpoint = options.view_as(PortableOptions).job_endpoint
    return "" if endpoint == "embed" or work_in_launcher(options) else f"the job server at {endpoint}"


def check_prism(options: PipelineOptions, config: Config) -> None:
    """Check that Prism's binary is there.

    Raises:
        UsageError: it is not.
    """
    path = options.view_as(PrismRunnerOptions).prism_location
    if path and not is_remote_path(path) and not os.path.exists(path):
        raise UsageError(f"--prism_location={path}: the file does not exist; `make prism` builds one")
