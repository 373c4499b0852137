"""Score a dataset of image pairs: `python -m pipeline.run --input=PATTERN --output=DIR`.

Exit codes: 0 the run finished; 1 it broke off, and the same command resumes it; 2 the request was wrong; 3 it
finished, but not a single pair could be scored, or the gate failed.
"""

import logging
import os
import sys
from collections.abc import Sequence

from pipeline.config import Config, parse
from pipeline.errors import UsageError

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
    from apache_beam.io.filesystems import FileSystems

    from pipeline.engines.engine import beam_options
    from pipeline.engines.remote import check_engine, is_dry_run, is_only_built
    from pipeline.launch.job import JobError, run_job
    from pipeline.launch.prepare import prepare
    from pipeline.launch.run_directory import claim, is_finished

    options = beam_options(config.beam_flags)
    # Else Beam looks for them in this program's arguments, again for each file.
    FileSystems.set_options(options)
    check_engine(options, config)
    prepared = prepare(config)
    if config.gate and not config.overwrite and is_finished(config.output, prepared.record):
        # Its launcher was lost before the verdict, or the rules are new ones.
        print(f"{config.output} is finished, and judged again", file=sys.stderr)
        return _tell(config)
    done = 0 if is_dry_run(options) else claim(config.output, prepared.record, config.overwrite)
    if done and not config.quiet:
        print(f"resuming {config.output}: {done} chunks are done", file=sys.stderr)
    try:
        run_job(options, prepared)
    except JobError as error:
        print(error, file=sys.stderr)
        return CRASH
    if is_only_built(options):
        print("the job is built; nobody waits for it here", file=sys.stderr)
        return OK
    return _tell(config)


def _tell(config: Config) -> int:
    """Print what the run found, and judge it; return the exit code."""
    from rich.console import Console

    from pipeline.audit.gate import gate
    from pipeline.console.tables import print_run
    from transforms.storage.json_files import read_json
    from transforms.storage.run_files import RunFiles

    files = RunFiles(config.output)
    status = read_json(files.config)["status"]
    if status == "running":
        print(f"error: the job was cancelled; the same command resumes {config.output}", file=sys.stderr)
        return CRASH
    if not config.quiet:
        # What is not a terminal takes lines of any length.
        print_run(read_json(files.summary), files, Console(width=None if sys.stdout.isatty() else 140))
    if config.gate:
        return gate(config.output, config.gate, config.baseline or None)
    return OK if status == "finished" else NOTHING_SCORED


def _set_up_logs(verbose: bool) -> None:
    # Beam logs each error with its traceback, under several names, and raises it as well: launch() tells it once.
    handler = logging.StreamHandler()
    handler.setLevel(logging.INFO if verbose else logging.CRITICAL)
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, handlers=[handler])
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
