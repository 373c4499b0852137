"""Run the job of a run and wait for its end. A job on a cluster or a service goes on without its launcher."""

import sys
import traceback

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline import graph
from pipeline.console.progress import progress
from pipeline.engines.engine import engine_of
from pipeline.engines.errors import explain
from pipeline.launch.interruptions import noted_interruptions
from pipeline.launch.prepare import Prepared


class JobError(Exception):
    """The job, or the waiting for it, ended before the run did. The message is for the user."""


def run_job(options: PipelineOptions, prepared: Prepared) -> None:
    """Build the graph, run it, and show its progress until it ends.

    Raises:
        JobError: it broke off, or the user interrupted it.
    """
    config, engine = prepared.config, engine_of(options)
    elsewhere = ""
    with noted_interruptions() as interrupted:
        try:
            here = engine.works_here(options)
            with progress(config.quiet, None if here else config.output), engine.watch(options):
                pipeline = beam.Pipeline(options=options)
                graph.build(pipeline, config, prepared.keep, prepared.record, prepared.earlier, one_worker=here)
                result = pipeline.run()
                elsewhere = engine.where(options, result)
                if elsewhere and not config.quiet:
                    print(f"submitted: {elsewhere}", file=sys.stderr)
                result.wait_until_finish()
        except KeyboardInterrupt as interrupt:
            raise JobError(interruption(elsewhere, config.output)) from interrupt
        except Exception as error:
            if interrupted():
                # Beam's worker in this process catches every exception, Ctrl-C's too, and raises one of its own.
                raise JobError(interruption(elsewhere, config.output)) from error
            # Engines raise errors of every kind. The finished chunks stay in any case.
            if config.verbose:
                traceback.print_exc()
            raise JobError(
                f"error: the run broke off: {explain(str(error))}\n"
                "The same command resumes it; --verbose shows where it happened."
            ) from error


def interruption(elsewhere: str, output: str) -> str:
    """Say what Ctrl-C on the launcher means for the run in `output`, whose job goes on `elsewhere`, if anywhere."""
    if elsewhere:
        return f"interrupted, but the job goes on: {elsewhere}. After you cancel it there, the same command resumes it"
    return f"interrupted; the same command resumes {output}"
