"""Run the job of a run, and tell what became of it. One of a cluster or a service goes on without its launcher."""

import sys
import traceback

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
)
from apache_beam.runners.portability.flink_runner import MAGIC_HOST_NAMES
from apache_beam.runners.runner import PipelineResult

from pipeline import graph
from pipeline.console.progress import progress
from pipeline.engines.engine import runner_class
from pipeline.engines.errors import explain
from pipeline.engines.local import watched_workers, work_here
from pipeline.engines.remote import is_only_built
from pipeline.launch.prepare import Prepared


class JobError(Exception):
    """The job, or the waiting for it, ended before the run did: a message for the user."""


def run_job(options: PipelineOptions, prepared: Prepared) -> None:
    """Build the graph, run it, and show its progress until it ends.

    Raises:
        JobError: it broke off, or the user interrupted it.
    """
    config = prepared.config
    elsewhere = ""
    try:
        with progress(config.quiet, None if work_here(options) else config.output), watched_workers(options):
            pipeline = beam.Pipeline(options=options)
            graph.build(pipeline, config, prepared.files, prepared.keep, prepared.record)
            result = pipeline.run()
            elsewhere = job_elsewhere(options, result)
            if elsewhere and not config.quiet:
                print(f"submitted: {elsewhere}", file=sys.stderr)
            result.wait_until_finish()
    except KeyboardInterrupt as interrupt:
        raise JobError(interruption(elsewhere, config.output)) from interrupt
    except Exception as error:
        # The engine's errors are of every kind. Whatever it was, the finished chunks stay.
        if config.verbose:
            traceback.print_exc()
        raise JobError(
            f"error: the run broke off: {explain(str(error))}\n"
            "The same command resumes it; --verbose shows where it happened."
        ) from error


def job_elsewhere(options: PipelineOptions, result: PipelineResult) -> str:
    """Where the job runs that was just submitted; empty if none was, or what its workers need is in this process."""
    portable = options.view_as(PortableOptions)
    if (portable.environment_type or "").upper() == "LOOPBACK" or is_only_built(options):
        return ""
    match runner_class(options):
        case "DataflowRunner":
            google = options.view_as(GoogleCloudOptions)
            page = f"dataflow/jobs/{google.region}/{result.job_id()}?project={google.project}"
            return f"https://console.cloud.google.com/{page}"
        case "FlinkRunner":
            master = options.view_as(FlinkRunnerOptions).flink_master
            return "" if master in MAGIC_HOST_NAMES else f"Flink at {master}"
        case "PortableRunner":
            return "" if portable.job_endpoint == "embed" else f"the job server at {portable.job_endpoint}"
    return ""


def interruption(elsewhere: str, output: str) -> str:
    """What Ctrl-C on the launcher means for the run in `output`; `elsewhere` is of `job_elsewhere`."""
    if elsewhere:
        return f"interrupted, but the job goes on: {elsewhere}. Cancelled there, it is resumed by the same command"
    return f"interrupted; the same command resumes {output}"
