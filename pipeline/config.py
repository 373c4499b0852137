"""The command line of `python -m pipeline.run`: flags, their validation, and the settings they become."""

import argparse
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from transforms.batch import Batching
from transforms.decode import SIZE_POLICIES, DecodePolicy
from transforms.losses.catalog import get_losses
from transforms.losses.layers import LAYERS, LPIPS_LAYERS
from transforms.losses.objective import Objective, check_differentiable, parse_objective
from transforms.losses.plan import NETWORKS, PRECISIONS, Plan
from transforms.schema import FORMATS, Fields, encoded_schema, metrics_schema

AUTO = "auto"

# Of the pairs that --batch_size counts; larger ones come in smaller batches, for memory goes by pixels.
_PIXELS_PER_PAIR = Batching.pixels // Batching.pairs


class UsageError(Exception):
    """The user asked for what cannot be: one message says what was given, what is allowed and what helps."""


@dataclass(frozen=True)
class Preset:
    """A named choice of losses.

    Attributes:
        losses: names of losses.
        objective: their weighted sum, or empty.
        vgg_layers: what `vgg_mse` and `style` compare.
    """

    losses: tuple[str, ...]
    objective: str = ""
    vgg_layers: tuple[str, ...] = LPIPS_LAYERS


PRESETS = {
    "default": Preset(("lpips_vgg", "ssim", "psnr", "gmsd", "sobel_l1", "fd_l1")),
    "edges": Preset(("sobel_l1",), "sobel_l1"),
    "features": Preset(("vgg_mse", "fd_l2"), "vgg_mse + 0.1*fd_l2"),
    "vgg_edges": Preset(("vgg_mse", "sobel_l2"), "vgg_mse + 0.05*sobel_l2", ("pool5",)),
}


@dataclass(frozen=True)
class Config:
    """The settings of a run.

    Attributes:
        input: file patterns.
        input_format: a name from `schema.FORMATS`, or `auto`.
        fields: which record fields to read.
        policy: which images to admit, and how to convert them.
        plan: what to compute.
        weights: path of the LPIPS weights; empty: the cached ones.
        keras_weights: path of Keras' VGG16 weights; empty: the file that Keras fetches.
        batching: size of the batches.
        chunk_pairs: most pairs in a chunk.
        output: the run's directory.
        overwrite: whether to delete an earlier run in that directory.
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
    batching: Batching
    chunk_pairs: int
    output: str
    overwrite: bool
    quiet: bool
    verbose: bool
    beam_flags: tuple[str, ...]


def parse(argv: Sequence[str]) -> Config:
    """Turn command-line arguments into settings; no file is opened and neither TensorFlow nor Beam imported.

    Raises:
        UsageError: an argument is wrong.
        SystemExit: the arguments ask for help.
    """
    given, beam_flags = _parser().parse_known_args(list(argv))
    _check_leftovers(beam_flags)
    plan = _plan(given)
    fields = Fields(given.generated_field, given.target_field, given.id_field, _names(given.keep_fields))
    _check_kept(fields, plan)
    return Config(
        input=tuple(pattern for patterns in given.input for pattern in patterns),
        input_format=given.input_format,
        fields=fields,
        policy=DecodePolicy(given.max_image_pixels, given.max_image_bytes, given.size_mismatch),
        plan=plan,
        weights=given.weights,
        keras_weights=given.keras_weights,
        batching=Batching(given.batch_size, given.batch_size * _PIXELS_PER_PAIR),
        chunk_pairs=given.chunk_pairs,
        output=given.output,
        overwrite=given.overwrite,
        quiet=given.quiet,
        verbose=given.verbose,
        beam_flags=tuple(beam_flags),
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. See python -m pipeline.run --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m pipeline.run",
        description="Score image pairs: perceptual and image-gradient losses of every generated image and its target.",
        epilog="Other flags go to Apache Beam unchanged, such as --runner=FlinkRunner or --project=NAME.",
        allow_abbrev=False,
    )
    parser.add_argument("--list_losses", action=_ListLosses, help="print every loss with its formula and exit")

    group = parser.add_argument_group("input")
    _add(
        group,
        "--input",
        nargs="+",
        action="extend",
        type=_patterns,
        required=True,
        metavar="PATTERN",
        help="files or patterns, local or gs://; several: comma-separated, or the flag repeated",
    )
    _add(group, "--input_format", choices=(AUTO, *FORMATS), default=AUTO, help="auto: by name, else by content")
    _add(
        group,
        "--id_field",
        metavar="NAME",
        help="default: id where there is one, else <file name>#<record number>",
    )
    _add(
        group,
        "--generated_field",
        metavar="NAME",
        default=Fields.generated,
        help="the encoded generated image",
    )
    _add(group, "--target_field", metavar="NAME", default=Fields.target, help="the encoded target image")
    _add(
        group,
        "--keep_fields",
        metavar="NAMES",
        default="",
        help="scalar fields to copy into the metrics, comma-separated",
    )

    group = parser.add_argument_group("images")
    _add(
        group,
        "--size_mismatch",
        choices=SIZE_POLICIES,
        default=DecodePolicy.size_mismatch,
        help="a pair of two sizes: fail; resize the generated image to its target; or crop both to what they share",
    )
    _add(
        group,
        "--max_image_pixels",
        type=_positive,
        default=DecodePolicy.max_image_pixels,
        help="larger images fail; VGG takes about 1.5 kB of memory per pixel of a pair",
    )
    _add(
        group,
        "--max_image_bytes",
        type=_positive,
        default=DecodePolicy.max_image_bytes,
        help="larger encoded images fail",
    )

    group = parser.add_argument_group("losses")
    _add(group, "--preset", choices=tuple(PRESETS), default=None, help=f"a named choice: {_describe_presets()}")
    _add(
        group,
        "--losses",
        metavar="NAMES",
        default="",
        help="comma-separated, instead of the preset's; see --list_losses",
    )
    _add(
        group,
        "--objective",
        metavar="SUM",
        default="",
        help="weighted sum such as 'lpips_vgg + 0.1*fd_l1', instead of the preset's; adds the column objective",
    )
    _add_switch(
        group,
        "--pixel_gradient",
        "add pixel_grad_l2 and pixel_grad_linf, of the objective to the generated pixels",
    )
    _add(
        group,
        "--vgg",
        choices=NETWORKS,
        default="lpips",
        help="whose VGG16 vgg_mse and style use: the one LPIPS was fitted to, or Keras' ImageNet one",
    )
    _add(
        group,
        "--vgg_layers",
        metavar="NAMES",
        default="",
        help=f"layers vgg_mse and style compare, instead of the preset's; from {', '.join(LAYERS)}",
    )
    _add(
        group,
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="of the network; bfloat16 differs by about 0.1 %%; auto takes it where the hardware has it",
    )
    _add(
        group,
        "--weights",
        metavar="PATH",
        default="",
        help="LPIPS weights, local or gs://; default: fetched once, cached",
    )
    _add(
        group,
        "--keras_weights",
        metavar="PATH",
        default="",
        help="Keras' VGG16 .h5 file without the top, for --vgg=keras",
    )

    group = parser.add_argument_group("work")
    _add(
        group,
        "--batch_size",
        type=_positive,
        default=Batching.pairs,
        help="most pairs in a batch; pairs larger than 256x256 come in smaller batches",
    )
    _add(
        group,
        "--chunk_pairs",
        type=_positive,
        default=256,
        help="most pairs in a chunk, the unit of work, retry and resuming",
    )

    group = parser.add_argument_group("output")
    _add(
        group,
        "--output",
        type=_directory,
        metavar="DIR",
        required=True,
        help="the run's directory, local or gs://; resumed if unfinished",
    )
    _add_switch(group, "--overwrite", "delete an earlier run in that directory first")
    _add_switch(group, "--quiet", "no progress, no table")
    _add_switch(group, "--verbose", "the logs of Beam and TensorFlow, and tracebacks")
    return parser


def _add(group: Any, flag: str, help: str, **settings: Any) -> None:
    shows_default = settings.get("default") not in (None, "")
    group.add_argument(flag, help=f"{help} (default: %(default)s)" if shows_default else help, **settings)


def _add_switch(group: Any, flag: str, help: str) -> None:
    # Templates and schedulers can only pass --flag=true.
    group.add_argument(flag, nargs="?", type=_boolean, const=True, default=False, metavar="true|false", help=help)


class _ListLosses(argparse.Action):
    def __init__(self, **settings: Any) -> None:
        super().__init__(nargs=0, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from transforms.losses.catalog import describe_losses

        print(describe_losses())
        parser.exit()


def _plan(given: argparse.Namespace) -> Plan:
    preset = PRESETS[given.preset or "default"]
    if given.losses and not given.preset:
        preset = Preset(())
    losses = _names(given.losses) or preset.losses
    layers = _names(given.vgg_layers) or preset.vgg_layers
    if not losses:
        raise UsageError(f"--losses={given.losses} names no loss; see --list_losses")
    with _blaming("--losses"):
        get_losses(losses)
    text = given.objective or preset.objective
    with _blaming("--objective"):
        objective = parse_objective(text) if text else None
    if given.pixel_gradient:
        _check_gradient(objective)
    for names, flag in ((losses, "--losses"), (layers, "--vgg_layers")):
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"{flag}={','.join(names)}: {', '.join(repeated)} is given twice")
    if unknown := [name for name in layers if name not in LAYERS]:
        raise UsageError(f"--vgg_layers: no layer {', '.join(unknown)}; the layers of VGG16 are {', '.join(LAYERS)}")
    if given.keras_weights and given.vgg != "keras":
        raise UsageError("--keras_weights is given, but --vgg=keras is not; nothing would use them")
    return Plan(losses, objective, given.pixel_gradient, given.precision, given.vgg, layers)


def _check_gradient(objective: Objective | None) -> None:
    if objective is None:
        raise UsageError("--pixel_gradient needs an --objective to differentiate, such as 'lpips_vgg + 0.1*fd_l1'")
    with _blaming("--pixel_gradient"):
        check_differentiable(objective)


@contextmanager
def _blaming(flag: str) -> Iterator[None]:
    """Turn what the losses' own checks raise into a message that says which flag is wrong."""
    try:
        yield
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from error


def _check_kept(fields: Fields, plan: Plan) -> None:
    taken = {*encoded_schema().names, *metrics_schema(plan.columns).names}
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


def _describe_presets() -> str:
    described = [f"{name} ({preset.objective or ', '.join(preset.losses)})" for name, preset in PRESETS.items()]
    return "; ".join(described)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in re.split(r"\s*,\s*", text.strip()) if name)


def _patterns(text: str) -> tuple[str, ...]:
    patterns = _names(text)
    if not patterns:
        raise argparse.ArgumentTypeError(f"{text!r} names no file; give files or patterns such as 'pairs-*.parquet'")
    return patterns


def _directory(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is no directory; give a local or a gs:// one")
    return text.rstrip("/") or text


def _positive(text: str) -> int:
    number = int(text) if text.isascii() and text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def _boolean(text: str) -> bool:
    values = {"true": True, "false": False, "1": True, "0": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return values[text.lower()]
