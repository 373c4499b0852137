"""Score a dataset of image pairs: `python -m pipeline.run --input=PATTERN --output=DIR`.

Exit codes: 0 the run finished; 1 it broke off, and the same command resumes it; 2 the request was wrong; 3 it
finished, but not a single pair could be scored, or the gate failed.
"""

import logging
import os
import sys
import traceback
from collections.abc import Sequence

from pipeline.config import Config, parse
from pipeline.flags import UsageError

OK, CRASH, USAGE, NOTHING_SCORED = 0, 1, 2, 3


def main(argv: Sequence[str]) -> int:
    """Parse the arguments, run the pipeline, print what came out; return the exit code."""
    try:
        config = parse(argv)
        _set_up_logs(config.verbose)
        return launch(config)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE


def launch(config: Config) -> int:
    """Run the pipeline of the settings; return the exit code.

    Raises:
        UsageError: the run cannot start.
    """
    # Beam takes seconds to import: wrong arguments are told before that.
    import apache_beam as beam
    from rich.console import Console

    from pipeline import graph
    from pipeline.audit.gate import gate
    from pipeline.audit.rules import read_rules
    from pipeline.audit.summary import read_summary
    from pipeline.engine import beam_options
    from pipeline.prepare import prepare
    from pipeline.progress import progress
    from pipeline.rundir import claim, read_json
    from pipeline.table import print_run
    from transforms.runfiles import RunFiles

    options = beam_options(config.beam_flags)
    if config.gate:
        # Now, so that a mistake in the rules or the baseline does not cost a night.
        read_rules(config.gate)
        if config.baseline:
            read_summary(config.baseline)
    prepared = prepare(config)
    done = claim(config.output, prepared.record, config.overwrite)
    if done and not config.quiet:
        print(f"resuming {config.output}: {done} chunks are done", file=sys.stderr)
    try:
        with progress(config.quiet):
            pipeline = beam.Pipeline(options=options)
            graph.build(pipeline, prepared.config, prepared.files, prepared.keep, prepared.record)
            pipeline.run().wait_until_finish()
    except KeyboardInterrupt:
        print(f"interrupted; the same command resumes {config.output}", file=sys.stderr)
        return CRASH
    except Exception as error:
        # The engine's errors are of every kind. Whatever it was, the finished chunks stay.
        if config.verbose:
            traceback.print_exc()
        print(f"error: the run broke off: {' '.join(str(error).split())}", file=sys.stderr)
        print("The same command resumes it; --verbose shows where it happened.", file=sys.stderr)
        return CRASH
    files = RunFiles(config.output)
    if not config.quiet:
        # What is not a terminal takes lines of any length.
        print_run(read_json(files.summary), files, Console(width=None if sys.stdout.isatty() else 140))
    if config.gate:
        return gate(config.output, config.gate, config.baseline or None)
    return OK if read_json(files.config)["status"] == "finished" else NOTHING_SCORED


def _set_up_logs(verbose: bool) -> None:
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR)
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        # Beam logs each error with its traceback, and raises it as well: launch() tells it once.
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
