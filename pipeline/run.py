"""Score a dataset of image pairs: `pairloss run --input=PATTERN --output=DIR`, or `python -m pipeline.run`.

Exit codes: 0 the run finished; 1 it broke off or was interrupted (Ctrl-C, SIGTERM), and the same command resumes it;
2 the request is wrong; 3 it finished, but not a single pair could be scored, or the gate failed; 4 input changed,
vanished or could not be reached while the run was at work, so that it is not finished.
"""

import atexit
import gc
import logging
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.config import Config
from pipeline.console.streams import guarded
from pipeline.errors import CRASH, INCOMPLETE, NOTHING_SCORED, OK, USAGE, UsageError, for_terminal
from pipeline.launch.interruptions import termination_as_interruption
from pipeline.parse import parse
from transforms.images.sandboxed import DECODE_TASK
from transforms.worker.garbage import made_to_stay

if TYPE_CHECKING:
    from pipeline.launch.prepare import Prepared
    from transforms.storage.run_files import RunFiles

# Beam takes the names of runners in any case.
_HERE = {f"--runner={name}" for name in ("direct", "directrunner", "fnapirunner")}
_ELSEWHERE = ("--direct_running_mode", "--prism_location")


def main(argv: Sequence[str]) -> int:
    """Parse the arguments, run the pipeline, print the result; return the exit code."""
    try:
        with termination_as_interruption():
            config = parse(argv)
            _set_up_logs(config.verbose)
            return launch(config)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("interrupted; the same command starts again, or resumes what it had begun", file=sys.stderr)
        return CRASH


def launch(config: Config) -> int:
    """Run the pipeline of the settings; return the exit code.

    Raises:
        UsageError: the run cannot start.
    """
    # Python ends with a collection that would visit every object of Beam and TensorFlow, which takes a second.
    atexit.register(gc.freeze)
    if _works_here(config.beam_flags):
        # They get ready while Beam is imported.
        config.sandbox.start(DECODE_TASK)
    # Beam takes seconds to import, so wrong arguments are reported before that.
    with made_to_stay():
        from apache_beam.io.filesystems import FileSystems

        from pipeline.engines.dataflow import is_dry_run, is_only_built
        from pipeline.engines.engine import beam_options, check_engine
        from pipeline.launch.job import JobError, run_job
        from pipeline.launch.prepare import prepare
        from pipeline.launch.run_directory import claim, is_finished

    options = beam_options(config.beam_flags)
    # Without this, Beam parses sys.argv again for every file it opens.
    FileSystems.set_options(options)
    check_engine(options, config)
    prepared = prepare(config)
    if config.gate and not config.overwrite and is_finished(config.output, prepared.record):
        # Its launcher died before the verdict, or the rules have changed.
        print(f"{config.output} is finished; judging it again", file=sys.stderr)
        return _report(prepared, ended_before=True)
    done = 0 if is_dry_run(options) else claim(config.output, prepared.record, config.overwrite, prepared.listing)
    if done and not config.quiet:
        print(f"resuming {config.output}: {done} chunks are done", file=sys.stderr)
    try:
        run_job(options, prepared)
    except JobError as error:
        if is_only_built(options) or not is_finished(config.output, prepared.record, claimed=True):
            print(for_terminal(str(error)), file=sys.stderr)
            return CRASH
        # A cluster may be lost between the last step and the answer to the launcher.
        print(f"the engine did not tell how the job ended, but {config.output} is finished", file=sys.stderr)
    if is_only_built(options):
        print("the job is built; this launcher does not wait for it", file=sys.stderr)
        return OK
    return _report(prepared)


def _works_here(beam_flags: Sequence[str]) -> bool:
    """Tell, before Beam can, whether this process will do the work. A wrong guess costs a second, nothing else."""
    flags = [flag.lower() for flag in beam_flags]
    runners = {flag for flag in flags if flag.startswith("--runner")}
    return runners <= _HERE and not any(flag.startswith(_ELSEWHERE) for flag in flags)


def _report(prepared: "Prepared", ended_before: bool = False) -> int:
    """Print the run's result, and judge it; return the exit code.

    Args:
        prepared: the run.
        ended_before: whether it ended long ago, so that somebody may have damaged its files.
    """
    from pipeline.audit.gate import gate
    from pipeline.audit.runs.files import read_record
    from pipeline.audit.runs.summaries import read_run
    from pipeline.console.performance import bottleneck
    from pipeline.console.tables import make_console, print_run
    from transforms.failure import NOT_DONE
    from transforms.storage.json_files import read_json
    from transforms.storage.run_files import RunFiles

    config, files = prepared.config, RunFiles(prepared.config.output)
    record = read_record(config.output)
    status = record.status
    if status == "running":
        print(f"error: the job was cancelled; the same command resumes {config.output}", file=sys.stderr)
        return CRASH
    for name, reason in (record.scored_again or {}).items():
        print(for_terminal(f"scored again: {name}, because {reason}"), file=sys.stderr)
    summary = read_run(config.output).summary.to_json() if ended_before else read_json(files.summary)
    if not config.quiet:
        print_run(summary, files, make_console(), config.metrics_format)
        if record.reused or config.reuse:
            print(f"{record.reused} pairs were taken over from {config.reuse or 'an earlier run'}")
        if told := bottleneck(record.performance or {}):
            print(told)
    if status == "incomplete":
        failed = summary["failed_files"]
        lost = [f"{path} ({failed[path]})" for path in failed if failed[path] in NOT_DONE]
        again = "the same command reads what was unavailable; what changed needs another --output, or --overwrite"
        message = f"error: {config.output} is not finished, for input was not read: {', '.join(lost)}; {again}"
        print(for_terminal(message), file=sys.stderr)
        return INCOMPLETE
    if config.gate:
        return gate(config.output, config.gate, prepared.rules, prepared.baseline)
    if status == "finished":
        return OK
    print(f"error: not a single pair was scored: {_why_nothing(summary, files)}", file=sys.stderr)
    return NOTHING_SCORED


def _why_nothing(summary: Mapping[str, Any], files: "RunFiles") -> str:
    reasons = Counter(summary["failures"]) + Counter(summary["failed_files"].values())
    if not reasons:
        return "the input holds none"
    told = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
    return f"{told}; see {files.failures_directory}/*.jsonl"


def _set_up_logs(verbose: bool) -> None:
    # Beam logs each error with its traceback, under several names, and raises it as well; launch() prints it once.
    handler = logging.StreamHandler()
    handler.setLevel(logging.INFO if verbose else logging.CRITICAL)
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, handlers=[handler])
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
