"""The engines that run a job: Beam's runners, one row of `ENGINES` each.

To add an engine, write its functions in a module beside this one and add a row.
"""

import contextlib
import io
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from apache_beam.options.pipeline_options import PipelineOptions, PrismRunnerOptions, SetupOptions, StandardOptions
from apache_beam.runners.runner import PipelineResult, create_runner

from pipeline.config import Config
from pipeline.engines import dataflow, flink, local, portable
from pipeline.errors import UsageError, nearest
from pipeline.parse import parser


def _accept(options: PipelineOptions, config: Config) -> None:
    """Check nothing."""


def _nowhere(options: PipelineOptions, result: PipelineResult) -> str:
    return ""


def _elsewhere(options: PipelineOptions) -> bool:
    return False


@dataclass(frozen=True)
class Engine:
    """How the launcher deals with one of Beam's runners.

    Attributes:
        check: raises a `UsageError`, before the job starts, if something that it needs is missing. It may set options.
        where: says where a submitted job goes on without its launcher; empty: it ends with the launcher.
        works_here: whether the launcher's process does all the work, so that progress can be counted there.
        watch: a context in which the job runs, for an engine whose workers the launcher looks after.
        takes_hints: whether it starts the workers, so that --accelerator and --min_ram have a meaning, and can build
            a job for later (--dry_run, --template_location).
    """

    check: Callable[[PipelineOptions, Config], None] = _accept
    where: Callable[[PipelineOptions, PipelineResult], str] = _nowhere
    works_here: Callable[[PipelineOptions], bool] = _elsewhere
    watch: Callable[[PipelineOptions], AbstractContextManager[None]] = nullcontext
    takes_hints: bool = False


# By the name of the runner's class. A runner without a row works too; nothing of it is checked.
ENGINES: dict[str, Engine] = {
    local.RUNNER: Engine(local.check, works_here=local.works_here, watch=local.watched_workers),
    "PrismRunner": Engine(portable.check_prism),
    "PortableRunner": Engine(portable.check, portable.where),
    "FlinkRunner": Engine(flink.check, flink.where),
    "DataflowRunner": Engine(dataflow.check, dataflow.where, takes_hints=True),
}


def engine_of(options: PipelineOptions) -> Engine:
    """The row of the runner, which `beam_options` has checked."""
    return ENGINES.get(_runner_class(options), Engine())


def check_engine(options: PipelineOptions, config: Config) -> None:
    """Check that the engine can be reached and that its workers will find what they need.

    Raises:
        UsageError: the engine or a setting for it is missing, or settings contradict each other.
    """
    engine = engine_of(options)
    if not engine.takes_hints:
        _refuse_hints(_runner_class(options), options, config)
    engine.check(options, config)


def beam_options(flags: Sequence[str]) -> PipelineOptions:
    """Make Beam's options from the flags that are not ours.

    `--runner=DirectRunner`, the default, is Beam's local engine, or Prism if `--prism_location` says where that is.

    Raises:
        UsageError: Beam knows no such flag, value or runner.
    """
    options = _parse(flags)
    standard = options.view_as(StandardOptions)
    runner = standard.runner or "DirectRunner"
    # Beam takes these names in any case.
    if runner.lower() in ("directrunner", "direct"):
        # Beam's own DirectRunner is a switch that first tries to download another engine, Prism. Without a network it
        # never stops trying.
        prism = options.view_as(PrismRunnerOptions).prism_location
        standard.runner = "PrismRunner" if prism else local.RUNNER
    # By default Beam ships every global of the launcher's main module; in a notebook, these include secrets.
    setup = options.view_as(SetupOptions)
    setup.save_main_session = bool(setup.save_main_session)
    try:
        create_runner(standard.runner)
    except (ValueError, ImportError, AttributeError) as error:
        raise UsageError(f"--runner={runner}: {error}") from error
    return options


def _runner_class(options: PipelineOptions) -> str:
    # Beam takes the runner's name in any case, or the path of its class.
    return type(create_runner(options.view_as(StandardOptions).runner)).__name__


def _refuse_hints(runner: str, options: PipelineOptions, config: Config) -> None:
    if config.resource_hints:
        # Other engines would run the hinted step in an environment of its own, and ship every image there.
        hints = ", ".join(f"--{name}" for name in config.resource_hints)
        raise UsageError(
            f"{hints} given, but {runner} places no workers; drop them, and start its workers where the GPUs are"
        )
    if dataflow.is_only_built(options):
        raise UsageError(
            f"--dry_run and --template_location are DataflowRunner's, and {runner} would really run; drop them"
        )


def _parse(flags: Sequence[str]) -> PipelineOptions:
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            options = PipelineOptions(list(flags))
            known = options.get_all_options()
            unknown = options.get_all_options(retain_unknown_options=True).keys() - known.keys()
    except SystemExit as error:
        # Beam's parser prints all its flags, then what is wrong.
        reason = printed.getvalue().rpartition(" error: ")[2].strip()
        raise UsageError(f"Apache Beam does not accept a flag: {reason}") from error
    if unknown:
        flags_known = [*(action.dest for action in parser()._actions), *known]
        hints = [f"--{name}{nearest(name, flags_known, '--')}" for name in sorted(unknown)]
        raise UsageError(f"no such flag: {', '.join(hints)}. See pairloss run --help; other flags are Apache Beam's")
    return options
