"""The Beam engine of a run: its options, checked on the launcher."""

import contextlib
import io
from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions, PrismRunnerOptions, SetupOptions, StandardOptions
from apache_beam.runners.runner import create_runner

from pipeline.engines.local import LOCAL_RUNNER, check_workers
from pipeline.errors import UsageError


def beam_options(flags: Sequence[str]) -> PipelineOptions:
    """Beam's options from the flags that are not ours.

    `--runner=DirectRunner`, the default, is Beam's local engine, or Prism if `--prism_location` says where that is.

    Raises:
        UsageError: Beam knows no such flag, value or runner, or the local engine cannot have so many workers.
    """
    options = _parse(flags)
    standard = options.view_as(StandardOptions)
    runner = standard.runner or "DirectRunner"
    # Beam takes these names in any case.
    if runner.lower() in ("directrunner", "direct"):
        # Beam's own DirectRunner is a switch that first tries to download another engine, Prism, and waits for that
        # without end where there is no network.
        prism = options.view_as(PrismRunnerOptions).prism_location
        standard.runner = "PrismRunner" if prism else LOCAL_RUNNER
    # Beam's default ships every global of the launcher's main module, in a notebook also its secrets.
    setup = options.view_as(SetupOptions)
    setup.save_main_session = bool(setup.save_main_session)
    try:
        create_runner(standard.runner)
    except (ValueError, ImportError, AttributeError) as error:
        raise UsageError(f"--runner={runner}: {error}") from error
    if standard.runner == LOCAL_RUNNER:
        check_workers(options)
    return options


def runner_class(options: PipelineOptions) -> str:
    """Name of the class of the runner, which `beam_options` has checked and Beam takes in any case."""
    return type(create_runner(options.view_as(StandardOptions).runner)).__name__


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
        names = ", ".join(f"--{name}" for name in sorted(unknown))
        raise UsageError(
            f"no such flag: {names}. See python -m pipeline.run --help for ours; the rest is Apache Beam's"
        )
    return options
