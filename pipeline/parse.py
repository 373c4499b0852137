"""The settings of a run from its command line: parse the flags, and check what they mean together."""

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from pipeline import __version__
from pipeline.config import OPTIMIZING, Config
from pipeline.errors import UsageError
from pipeline.flags import (
    Parser,
    add_flags,
    build,
    flags_of,
    names,
    parse_given,
)
from pipeline.presets import PRESETS, Preset
from transforms.descent.settings import DEFAULT_OBJECTIVE, Descent
from transforms.images.decode import DecodePolicy
from transforms.losses.catalog import LOSSES, describe_losses, get_losses, parts_of
from transforms.losses.networks.specs import NETWORKS, VGG16_LAYERS
from transforms.losses.objective import check_differentiable, parse_objective
from transforms.losses.plan import Plan
from transforms.losses.protocol import Protocol
from transforms.reading.format import LISTING
from transforms.reading.templates import check_templates, parse_templates
from transforms.row_keys import CANDIDATE
from transforms.schema import Fields, encoded_schema, metrics_schema, optimization_fields
from transforms.settings import setting
from transforms.worker.sandbox import Sandbox

_FILES = ("input", "generated", "target", "mask")
GROUPS = ("input", "images", "losses", OPTIMIZING, "work", "Dataflow", "output", "audit", "messages")
_DESCRIBED = "; ".join(f"{name} ({preset.objective or ', '.join(preset.losses)})" for name, preset in PRESETS.items())


@dataclass(frozen=True)
class Choices:
    """The flags that `parse` resolves into `Config.plan` and `Config.descent`."""

    preset: str | None = setting(f"a named choice: {_DESCRIBED}", None, group="losses", choices=tuple(PRESETS))
    losses: str = setting(
        "comma-separated, instead of the preset's; see --list_losses", "", group="losses", metavar="NAMES"
    )
    objective: str = setting(
        "weighted sum such as 'lpips_vgg + 0.1*fd_l1', instead of the preset's; adds the column objective",
        "",
        group="losses",
        metavar="SUM",
    )
    layers: bool = setting(
        "also each layer's part of LPIPS, such as lpips_vgg_relu1_2: their sum is the loss", False, group="losses"
    )
    optimize: bool = setting(
        "move each generated image towards its target by descending the objective", False, group=OPTIMIZING
    )


def parser() -> argparse.ArgumentParser:
    """The parser of `pairloss run`. It raises `UsageError` for a wrong argument."""
    flags = Parser(
        prog="pairloss run",
        description="Score image pairs: perceptual and image-gradient losses of every generated image and its target.",
        epilog="Other flags go to Apache Beam unchanged, such as --runner=FlinkRunner or --project=NAME.",
    )
    flags.add_argument("--version", action="version", version=f"pairloss {__version__}")
    flags.add_argument("--list_losses", action=_ListLosses, help="print every loss with its formula and exit")
    add_flags(flags, GROUPS, Choices, Config, _weights_flags())
    return flags


def _weights_flags() -> type:
    """Settings with a flag for each weights file."""
    helps = {network.flag: network.help for network in NETWORKS.values()}
    paths = [(flag, str, setting(help, "", group="losses", metavar="PATH")) for flag, help in helps.items()]
    return dataclasses.make_dataclass("Weights", paths)


class _ListLosses(argparse.Action):
    def __init__(self, **settings: Any) -> None:
        super().__init__(nargs=0, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        parser._print_message(f"{describe_losses()}\n", sys.stdout)
        parser.exit()


def parse(argv: Sequence[str]) -> Config:
    """Turn command-line arguments into settings. It opens no file, and imports neither TensorFlow nor Beam.

    Raises:
        UsageError: an argument is wrong.
        SystemExit: the arguments ask for help.
    """
    given, beam_flags = parse_given(parser(), argv)
    _check_leftovers(beam_flags)
    choices = build(Choices, given)
    plan = _plan(choices, given)
    with _blaming("--background"):
        policy = build(DecodePolicy, given)
    _check_fields(given)
    with _blaming("--max_record_seconds"):
        sandbox = build(Sandbox, given, verbose=bool(given["verbose"]))
    files = {flag: tuple(pattern for found in given[flag] or () for pattern in found) for flag in _FILES}
    if policy.split != "none":
        _check_split(files, given)
        # Both sides are the same images.
        files["target"] = files["generated"]
        if files["input"]:
            given["target_field"] = (given["generated_field"] or Fields.generated)[0]
    config = build(
        Config,
        given,
        sandbox=sandbox,
        **files,
        **_of_folders(files, given),
        policy=policy,
        plan=plan,
        descent=_descent(choices, given),
        weights={name: path for name in plan.networks if (path := given[NETWORKS[name].flag])},
        beam_flags=tuple(beam_flags),
    )
    _check_kept(config.fields, plan, choices.optimize)
    kept = (*config.fields.keep, *([CANDIDATE] if config.fields.has_candidates else []))
    if config.slice_by and config.slice_by not in kept:
        raise UsageError(f"--slice_by={config.slice_by} is not in --keep_fields; add it there")
    if CANDIDATE in kept and not config.slice_by:
        config = dataclasses.replace(config, slice_by=CANDIDATE)
    if config.baseline and not config.gate:
        raise UsageError("--baseline has no effect without --gate; add --gate, or drop it")
    if config.retry_failures and not config.reuse:
        raise UsageError("--retry_failures tries failures of an earlier run again; name that run with --reuse=DIR")
    if config.reuse and config.generated and config.descent:
        raise UsageError(
            "--reuse cannot copy the optimized images of folders; drop it, or make records of them with `pairloss pack`"
        )
    if config.reuse and config.reuse.rstrip("/") == config.output.rstrip("/"):
        raise UsageError(f"--reuse and --output are both {config.output}; give the new run a directory of its own")
    return config


def _check_fields(given: Mapping[str, Any]) -> None:
    if given["generated_field"] == ():
        raise UsageError("--generated_field= names no field; name one, or drop the flag for 'generated'")
    with _blaming("--array_shape"):
        _ = Fields(array_shape=given["array_shape"] or "").shape


def _check_split(files: Mapping[str, tuple[str, ...]], given: Mapping[str, Any]) -> None:
    if files["target"] or given["target_field"]:
        raise UsageError("--split finds the target in the generated image; drop --target and --target_field")
    if len(given["generated_field"] or ()) > 1:
        raise UsageError("--split takes one --generated_field, whose images hold both")


def _of_folders(files: Mapping[str, tuple[str, ...]], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that follow from --generated and --target; empty with --input."""
    if bool(files["generated"]) != bool(files["target"]) or bool(files["input"]) == bool(files["generated"]):
        raise UsageError("give either --input=PATTERN of records, or both --generated=PATTERN and --target=PATTERN")
    if files["input"]:
        if files["mask"]:
            raise UsageError(
                "--mask belongs to --generated; of records, --mask_field names the field that holds the mask"
            )
        return {}
    only_records = (
        "input_format",
        "generated_field",
        "target_field",
        "mask_field",
        "id_field",
        "image_root",
        "allow_http",
        "array_shape",
        "array_type",
    )
    if unused := [f"--{name}" for name in only_records if given[name]]:
        raise UsageError(f"{', '.join(unused)} belong to --input, and mean nothing with --generated; drop them")
    with _blaming("--generated"):
        generated = parse_templates(files["generated"])
    with _blaming("--target"):
        target = parse_templates(files["target"])
    with _blaming("--mask"):
        mask = parse_templates(files["mask"])
    try:
        further = check_templates(generated, target)
        if mask:
            check_templates(generated, mask, "--mask")
    except ValueError as error:
        raise UsageError(str(error)) from error
    named = given["keep_fields"] or ()
    if unknown := [name for name in named if name not in generated[0].fields]:
        fields = ", ".join(generated[0].fields) or "no field"
        raise UsageError(f"--keep_fields={','.join(unknown)}: --generated has {fields}, such as {{scene}} in a name")
    keep = tuple(dict.fromkeys((*named, *further)))
    return {"input_format": LISTING, "fields": Fields(keep=keep, mask="mask" if mask else "")}


def _plan(choices: Choices, given: Mapping[str, Any]) -> Plan:
    preset = PRESETS[choices.preset or "default"]
    if choices.losses and not choices.preset:
        preset = Preset(())
    losses = names(choices.losses) or preset.losses
    if not losses:
        raise UsageError(f"--losses={choices.losses} names no loss; see --list_losses")
    with _blaming("--losses"):
        get_losses(losses)
    if choices.layers:
        losses = _with_parts(losses)
    text = choices.objective or preset.objective or (DEFAULT_OBJECTIVE if choices.optimize else "")
    with _blaming("--objective"):
        objective = parse_objective(text) if text else None
    layers = given["vgg_layers"] or preset.vgg_layers
    with _blaming("--crop_border"):
        protocol = build(Protocol, given, masked=bool(given["mask"] or given["mask_field"]))
    plan = build(Plan, given, losses=losses, objective=objective, vgg_layers=layers, protocol=protocol)
    if protocol.masked:
        _check_masked(plan, choices.optimize)
    if plan.precision == "float16" and (plan.pixel_gradient or choices.optimize):
        raise UsageError("gradients vanish in --precision=float16; give bfloat16 or float32")
    if plan.pixel_gradient and objective is None:
        raise UsageError("--pixel_gradient needs an --objective to differentiate, such as 'lpips_vgg + 0.1*fd_l1'")
    if objective and (plan.pixel_gradient or choices.optimize):
        with _blaming("--objective"):
            check_differentiable(objective)
    for chosen, flag in ((losses, "--losses"), (layers, "--vgg_layers")):
        if repeated := sorted({name for name in chosen if chosen.count(name) > 1}):
            raise UsageError(f"{flag}={','.join(chosen)}: {', '.join(repeated)} is given twice")
    if unknown := [name for name in layers if name not in VGG16_LAYERS]:
        known = ", ".join(VGG16_LAYERS)
        raise UsageError(f"--vgg_layers: VGG16 has no layer {', '.join(unknown)}; choose from {known}")
    for network in NETWORKS.values():
        # A pinned file changes nothing, so that a scheduler may always name it.
        if given[network.flag] and not network.sha256 and network.name not in plan.networks:
            users = ", ".join(loss.name for loss in LOSSES.values() if loss.network == network.name)
            raise UsageError(f"--{network.flag} has no effect without one of the losses {users}; add one, or drop it")
    return plan


def _check_masked(plan: Plan, optimize: bool) -> None:
    """Refuse what would be null for every pair, or ignore the mask."""
    if optimize:
        raise UsageError("--optimize ignores masks, and would change the whole image; drop --optimize, or the mask")
    if unmaskable := [name for name in plan.objective_losses if not LOSSES[name].maskable]:
        raise UsageError(f"--objective: no mask can be applied to {', '.join(unmaskable)}; drop the loss, or the mask")


def _with_parts(losses: tuple[str, ...]) -> tuple[str, ...]:
    """The losses, each followed by its parts by layer."""
    parts = {name: [part.name for part in parts_of(name)] for name in losses}
    if not any(parts.values()):
        whole = ", ".join(dict.fromkeys(loss.part_of for loss in LOSSES.values() if loss.part_of))
        raise UsageError(f"--layers has no effect without one of the losses {whole}; add one, or drop it")
    return tuple(dict.fromkeys(name for loss in losses for name in (loss, *parts[loss])))


def _descent(choices: Choices, given: Mapping[str, Any]) -> Descent | None:
    if choices.optimize:
        with _blaming("--optimize"):
            return build(Descent, given)
    only_optimizing = [*(flag.name for flag in flags_of(Descent)), "optimized_format"]
    if unused := [f"--{name}" for name in only_optimizing if given[name] is not None]:
        raise UsageError(f"{', '.join(unused)} given without --optimize; add it, or nothing would use them")
    return None


@contextmanager
def _blaming(flag: str) -> Iterator[None]:
    """Turn a ValueError in the block into a UsageError that names the flag."""
    try:
        yield
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from error


def _check_kept(fields: Fields, plan: Plan, optimize: bool) -> None:
    taken = {*encoded_schema(masked=bool(fields.mask)).names, *metrics_schema(plan.columns).names}
    taken |= {CANDIDATE} if fields.has_candidates else set()
    if repeated := [name for name in fields.generated if fields.generated.count(name) > 1]:
        raise UsageError(f"--generated_field: {repeated[0]} is given twice; every candidate needs a field of its own")
    if optimize:
        taken.update(added.name for added in optimization_fields(plan.optimization_columns, trace=True))
    if clashes := [name for name in fields.keep if name in taken]:
        raise UsageError(
            f"--keep_fields: {', '.join(clashes)} would clash with a column of the metrics; rename the field"
        )


def _check_leftovers(flags: Sequence[str]) -> None:
    """Refuse a flag of an earlier version, and an argument that belongs to no flag: Beam would silently drop them."""
    if any(flag.partition("=")[0] == "--vgg" for flag in flags):
        raise UsageError("--vgg is gone: name the losses vgg_mse_keras, style_keras")
    for before, argument in zip(("", *flags), flags, strict=False):
        awaits_value = before.startswith("--") and before != "--" and "=" not in before
        if not argument.startswith("-") and not awaits_value:
            raise UsageError(f"unexpected argument {argument!r}; every argument is a flag, such as --input=PATTERN")
