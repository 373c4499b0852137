"""The settings of a run, validated: what the flags of `python -m pipeline.run` become."""

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.errors import UsageError
from pipeline.flags import PRESETS, Preset, names, parser
from transforms.columns import Column
from transforms.descent.settings import DEFAULT_OBJECTIVE, Descent
from transforms.images.decode import DecodePolicy
from transforms.losses.catalog import get_losses
from transforms.losses.networks.layers import LAYERS
from transforms.losses.objective import check_differentiable, parse_objective
from transforms.losses.plan import Plan
from transforms.schema import Fields, encoded_schema, metrics_schema, optimization_fields
from transforms.scoring.batch import PIXELS_PER_PAIR, Batching


@dataclass(frozen=True)
class Config:
    """The settings of a run.

    Attributes:
        input: file patterns.
        input_format: a key of `reading.format.FORMATS`, or `auto`.
        fields: which record fields to read.
        policy: which images to admit, and how to convert them.
        plan: what to compute.
        weights: path of the LPIPS weights; empty: the cached ones.
        keras_weights: path of Keras' VGG16 weights; empty: the file that Keras fetches.
        descent: how to optimize the generated images; None: they are only scored.
        optimized_format: how optimized images are written.
        batching: size of the batches; None: what suits the worker's device.
        chunk_pairs: most pairs in a chunk.
        resource_hints: Beam's hints, by name, of the step that scores; for Dataflow.
        output: the run's directory.
        overwrite: whether to delete an earlier run in that directory.
        metrics_format: a format in which metrics are written beside Parquet; `parquet`: none.
        slice_by: kept field whose values are summarized each by itself; empty: none.
        gate: file of rules to judge the run by; empty: none.
        baseline: run or summary to compare with; empty: none.
        quiet: show no progress and no table.
        verbose: show the logs of Beam and TensorFlow, and tracebacks.
        beam_flags: flags that are not ours.
    """

    input: tuple[str, ...]
    input_format: str
    fields: Fields
    policy: DecodePolicy
    plan: Plan
    weights: str
    keras_weights: str
    descent: Descent | None
    optimized_format: str
    batching: Batching | None
    chunk_pairs: int
    resource_hints: Mapping[str, str]
    output: str
    overwrite: bool
    metrics_format: str
    slice_by: str
    gate: str
    baseline: str
    quiet: bool
    verbose: bool
    beam_flags: tuple[str, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        """The metrics' columns that hold numbers, in order."""
        return (*self.plan.columns, *(self.plan.optimization_columns if self.descent else ()))


def parse(argv: Sequence[str]) -> Config:
    """Turn command-line arguments into settings; no file is opened and neither TensorFlow nor Beam imported.

    Raises:
        UsageError: an argument is wrong.
        SystemExit: the arguments ask for help.
    """
    given, beam_flags = parser().parse_known_args(list(argv))
    _check_leftovers(beam_flags)
    plan = _plan(given)
    fields = Fields(given.generated_field, given.target_field, given.id_field, names(given.keep_fields))
    _check_kept(fields, plan, given.optimize)
    if given.slice_by and given.slice_by not in fields.keep:
        raise UsageError(f"--slice_by={given.slice_by} is no kept field; add it to --keep_fields")
    if given.baseline and not given.gate:
        raise UsageError("--baseline is given, but --gate is not; nothing would use it")
    return Config(
        input=tuple(pattern for patterns in given.input for pattern in patterns),
        input_format=given.input_format,
        fields=fields,
        policy=DecodePolicy(given.max_image_pixels, given.max_image_bytes, given.size_mismatch),
        plan=plan,
        weights=given.weights,
        keras_weights=given.keras_weights,
        descent=_descent(given),
        optimized_format=given.optimized_format or "parquet",
        batching=Batching(given.batch_size, given.batch_size * PIXELS_PER_PAIR) if given.batch_size else None,
        chunk_pairs=given.chunk_pairs,
        resource_hints={name: hint for name in ("accelerator", "min_ram") if (hint := getattr(given, name))},
        output=given.output,
        overwrite=given.overwrite,
        metrics_format=given.metrics_format,
        slice_by=given.slice_by,
        gate=given.gate,
        baseline=given.baseline,
        quiet=given.quiet,
        verbose=given.verbose,
        beam_flags=tuple(beam_flags),
    )


def _plan(given: argparse.Namespace) -> Plan:
    preset = PRESETS[given.preset or "default"]
    if given.losses and not given.preset:
        preset = Preset(())
    losses = names(given.losses) or preset.losses
    layers = names(given.vgg_layers) or preset.vgg_layers
    if not losses:
        raise UsageError(f"--losses={given.losses} names no loss; see --list_losses")
    if given.precision == "float16" and (given.pixel_gradient or given.optimize):
        raise UsageError("--precision=float16 is too small for gradients, which would vanish; give bfloat16 or float32")
    with _blaming("--losses"):
        get_losses(losses)
    text = given.objective or preset.objective or (DEFAULT_OBJECTIVE if given.optimize else "")
    with _blaming("--objective"):
        objective = parse_objective(text) if text else None
    if given.pixel_gradient and objective is None:
        raise UsageError("--pixel_gradient needs an --objective to differentiate, such as 'lpips_vgg + 0.1*fd_l1'")
    if objective and (given.pixel_gradient or given.optimize):
        with _blaming("--objective"):
            check_differentiable(objective)
    for chosen, flag in ((losses, "--losses"), (layers, "--vgg_layers")):
        if repeated := sorted({name for name in chosen if chosen.count(name) > 1}):
            raise UsageError(f"{flag}={','.join(chosen)}: {', '.join(repeated)} is given twice")
    if unknown := [name for name in layers if name not in LAYERS]:
        raise UsageError(f"--vgg_layers: no layer {', '.join(unknown)}; the layers of VGG16 are {', '.join(LAYERS)}")
    if given.keras_weights and given.vgg != "keras":
        raise UsageError("--keras_weights is given, but --vgg=keras is not; nothing would use them")
    return Plan(losses, objective, given.pixel_gradient, given.precision, given.vgg, layers)


def _descent(given: argparse.Namespace) -> Descent | None:
    names = [field.name for field in dataclasses.fields(Descent)]
    chosen = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    if given.optimize:
        with _blaming("--optimize"):
            return Descent(**chosen)
    if chosen or given.optimized_format:
        flags = ", ".join(f"--{name}" for name in [*chosen, *(["optimized_format"] if given.optimized_format else [])])
        raise UsageError(f"{flags} given without --optimize; add it, or nothing would use them")
    return None


@contextmanager
def _blaming(flag: str) -> Iterator[None]:
    """Turn what the losses' own checks raise into a message that says which flag is wrong."""
    try:
        yield
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from error


def _check_kept(fields: Fields, plan: Plan, optimize: bool) -> None:
    taken = {*encoded_schema().names, *metrics_schema(plan.columns).names}
    if optimize:
        taken.update(added.name for added in optimization_fields(plan.optimization_columns, trace=True))
    if clashes := [name for name in fields.keep if name in taken]:
        raise UsageError(
            f"--keep_fields: {', '.join(clashes)} would clash with a column of the metrics; rename the field"
        )


def _check_leftovers(flags: Sequence[str]) -> None:
    """Arguments that are no flag and follow none that awaits a value: Beam would drop them in silence."""
    for before, argument in zip(("", *flags), flags, strict=False):
        awaits_value = before.startswith("--") and before != "--" and "=" not in before
        if not argument.startswith("-") and not awaits_value:
            raise UsageError(f"unexpected argument {argument!r}; every argument is a flag, such as --input=PATTERN")
