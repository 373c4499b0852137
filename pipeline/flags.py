"""The flags of `python -m pipeline.run`, with their help."""

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from pipeline.errors import UsageError
from transforms.descent.settings import METHODS, Descent
from transforms.images.decode import SIZE_POLICIES, DecodePolicy
from transforms.losses.catalog import describe_losses
from transforms.losses.networks.layers import LAYERS, LPIPS_LAYERS
from transforms.losses.plan import NETWORKS, PRECISIONS
from transforms.reading.format import AUTO, FORMATS
from transforms.schema import Fields
from transforms.scoring.batch import Batching
from transforms.writing.metrics_text import METRICS_FORMATS
from transforms.writing.optimized_images import OPTIMIZED_FORMATS


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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. See python -m pipeline.run --help")


def parser() -> argparse.ArgumentParser:
    """The parser. What is wrong it raises as `UsageError`."""
    flags = _Parser(
        prog="python -m pipeline.run",
        description="Score image pairs: perceptual and image-gradient losses of every generated image and its target.",
        epilog="Other flags go to Apache Beam unchanged, such as --runner=FlinkRunner or --project=NAME.",
        allow_abbrev=False,
    )
    flags.add_argument("--list_losses", action=_ListLosses, help="print every loss with its formula and exit")
    for title, add_flags in _GROUPS.items():
        add_flags(flags.add_argument_group(title))
    return flags


def _input(group: Any) -> None:
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
    _add(group, "--id_field", metavar="NAME", help="default: id where there is one, else <file name>#<record number>")
    _add(group, "--generated_field", metavar="NAME", default=Fields.generated, help="the encoded generated image")
    _add(group, "--target_field", metavar="NAME", default=Fields.target, help="the encoded target image")
    _add(
        group,
        "--keep_fields",
        metavar="NAMES",
        default="",
        help="scalar fields to copy into the metrics, comma-separated",
    )


def _images(group: Any) -> None:
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


def _losses(group: Any) -> None:
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
        group, "--pixel_gradient", "add pixel_grad_l2 and pixel_grad_linf, of the objective to the generated pixels"
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
        help="of the network; bfloat16 differs by about 0.1 %%, float16 by 0.02 %%; auto: what the hardware is fast in",
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


def _optimizing(group: Any) -> None:
    _add_switch(group, "--optimize", "move each generated image towards its target by descending the objective")
    _add_descent(group, "method", "the method of descent", choices=METHODS)
    _add_descent(group, "learning_rate", "in pixel units, images being in [0, 1]", type=float)
    _add_descent(group, "max_steps", "stop after so many steps", type=int)
    _add_descent(group, "target_loss", "stop where the objective is as small as this", type=float)
    _add_descent(group, "target_ratio", "stop where the objective is this fraction of its start", type=float)
    _add_descent(group, "patience", "stop after so many steps without progress", type=int)
    _add_descent(group, "rtol", "progress is a relative fall of the objective by more than this", type=float)
    _add_descent(group, "max_change", "most that a pixel may change, in [0, 1]", type=float)
    _add_descent(group, "trace_every", "keep the objective of every so many steps, as the column trace", type=int)
    _add(
        group,
        "--optimized_format",
        choices=OPTIMIZED_FORMATS,
        default=None,
        help="of the optimized images: one file a chunk, or one PNG file a pair (default: parquet)",
    )


def _work(group: Any) -> None:
    _add(
        group,
        "--batch_size",
        type=_positive,
        help="most pairs in a batch; pairs larger than 256x256 come in smaller batches "
        f"(default: {Batching.pairs}; on a GPU what its memory holds)",
    )
    _add(
        group,
        "--chunk_pairs",
        type=_positive,
        default=256,
        help="most pairs in a chunk, the unit of work, retry and resuming",
    )


def _dataflow(group: Any) -> None:
    _add(
        group,
        "--accelerator",
        type=_accelerator,
        metavar="SPEC",
        default="",
        help="of the workers that score: 'type:nvidia-tesla-t4;count:1;install-nvidia-driver', for example",
    )
    _add(group, "--min_ram", type=_storage_size, metavar="SIZE", default="", help="of the same workers, such as 16GB")


def _output(group: Any) -> None:
    _add(
        group,
        "--output",
        type=_directory,
        metavar="DIR",
        required=True,
        help="the run's directory, local or gs://; resumed if unfinished",
    )
    _add_switch(group, "--overwrite", "delete an earlier run in that directory first")
    _add(
        group,
        "--metrics_format",
        choices=METRICS_FORMATS,
        default=METRICS_FORMATS[0],
        help="csv, jsonl: write the metrics like that as well, in a directory of their own",
    )
    _add(group, "--slice_by", metavar="NAME", default="", help="a kept field: summarize each of its values by itself")


def _audit(group: Any) -> None:
    _add(group, "--gate", metavar="FILE", default="", help="rules to judge the run by; exit code 3 if it fails")
    _add(group, "--baseline", metavar="PATH", default="", help="for --gate: a good run, or its summary.json")


def _messages(group: Any) -> None:
    _add_switch(group, "--quiet", "no progress, no table")
    _add_switch(group, "--verbose", "the logs of Beam and TensorFlow, and tracebacks")


_GROUPS: dict[str, Callable[[Any], None]] = {
    "input": _input,
    "images": _images,
    "losses": _losses,
    "optimizing the generated images": _optimizing,
    "work": _work,
    "Dataflow": _dataflow,
    "output": _output,
    "audit": _audit,
    "messages": _messages,
}


def _add(group: Any, flag: str, help: str, **settings: Any) -> None:
    shows_default = settings.get("default") not in (None, "")
    group.add_argument(flag, help=f"{help} (default: %(default)s)" if shows_default else help, **settings)


def _add_descent(group: Any, name: str, help: str, **settings: Any) -> None:
    """A flag for a field of `Descent`, whose default it leaves alone: it must show whether it was given."""
    default = getattr(Descent, name)
    shown = "" if default is None else f" (default: {default})"
    group.add_argument(f"--{name}", default=None, help=help + shown, **settings)


def _add_switch(group: Any, flag: str, help: str) -> None:
    # Templates and schedulers can only pass --flag=true.
    group.add_argument(flag, nargs="?", type=_boolean, const=True, default=False, metavar="true|false", help=help)


class _ListLosses(argparse.Action):
    def __init__(self, **settings: Any) -> None:
        super().__init__(nargs=0, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(describe_losses())
        parser.exit()


def _describe_presets() -> str:
    described = [f"{name} ({preset.objective or ', '.join(preset.losses)})" for name, preset in PRESETS.items()]
    return "; ".join(described)


def names(text: str) -> tuple[str, ...]:
    """The names in a comma-separated list."""
    return tuple(name for name in re.split(r"\s*,\s*", text.strip()) if name)


def _patterns(text: str) -> tuple[str, ...]:
    patterns = names(text)
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


def _accelerator(text: str) -> str:
    if text and not re.fullmatch(r"type:[a-z0-9-]+;count:[1-9][0-9]*(;[^;\s]+)*", text):
        example = "type:nvidia-tesla-t4;count:1;install-nvidia-driver"
        raise argparse.ArgumentTypeError(f"{text!r} is no accelerator; one is written like {example!r}")
    return text


def _storage_size(text: str) -> str:
    if text and not re.fullmatch(r"[0-9]+(\.[0-9]+)?[KMGT]i?B", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of memory; one is written like 16GB")
    return text


def _boolean(text: str) -> bool:
    values = {"true": True, "false": False, "1": True, "0": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return values[text.lower()]
