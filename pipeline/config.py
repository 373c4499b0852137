"""The settings of a run: each is a field of `Config`, or of a dataclass that is one, and its flag is made from it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline import __version__
from pipeline.flags import (
    accelerator,
    path,
    patterns,
    price,
    storage_size,
)
from transforms.columns import Column
from transforms.descent.settings import Descent
from transforms.images.decode import DecodePolicy
from transforms.losses.networks.weights_file import WeightsFile
from transforms.losses.objective import Objective
from transforms.losses.plan import Plan
from transforms.reading.format import AUTO, format_names
from transforms.schema import Fields
from transforms.scoring.batch import PIXELS_PER_PAIR, Batching
from transforms.settings import setting
from transforms.worker.sandbox import Sandbox
from transforms.writing.metrics_text import METRICS_FORMATS
from transforms.writing.optimized_images import OPTIMIZED_FORMATS

OPTIMIZING = "optimizing the generated images"


def _patterns(help: str) -> Any:
    """A setting of paths and patterns. The identity holds what they match instead: files, or the listing of pairs."""
    more = {"nargs": "+", "action": "extend", "metavar": "PATTERN"}
    return setting(help, (), group="input", identity=False, type=patterns, **more)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of a run; each field's metadata says what it means."""

    input: tuple[str, ...] = _patterns(
        "files or patterns of records, local, gs:// or s3://; separate several by commas, or repeat the flag",
    )
    generated: tuple[str, ...] = _patterns(
        "instead of --input: the generated image files, such as 'out/*.png' or 'out/{id}x4.png', or a directory; "
        "pairs are joined by what the wildcards or fields match; NAME=PATTERN, repeated, for several candidates",
    )
    target: tuple[str, ...] = _patterns(
        "their targets, such as 'gt/*.png' or 'gt/{id}.png'",
    )
    mask: tuple[str, ...] = _patterns(
        "with --generated: images that say which pixels count, those brighter than the middle of their range, such as "
        "'masks/*.png' or 'masks/{id}.png'; see --mask_field for records",
    )
    input_format: str = setting(
        "auto goes by the file's name, or by its content if the name does not tell",
        AUTO,
        group="input",
        choices=lambda: (AUTO, *format_names()),
    )
    fields: Fields = field(metadata={"group": "input"})
    policy: DecodePolicy = field(metadata={"group": "images", "identity": "images"})
    plan: Plan = field(metadata={"group": "losses"})
    # By name of the network, the path of its weights; by default they are fetched once and cached.
    weights: Mapping[str, str] = field(default_factory=dict, metadata={"identity": False})
    descent: Descent | None = field(default=None, metadata={"group": OPTIMIZING})
    optimized_format: str = setting(
        "of the optimized images: one file a chunk, or one PNG file a pair (default: parquet)",
        "parquet",
        group=OPTIMIZING,
        choices=tuple(OPTIMIZED_FORMATS),
        # It must not be given without --optimize, and a template gives every default.
        flag_default=None,
    )
    batch_size: int | None = setting(
        "most pairs in a batch; pairs larger than 256x256 come in smaller batches "
        f"(default: {Batching.pairs}; on a GPU what its memory holds)",
        None,
        group="work",
        positive=True,
    )
    chunk_pairs: int = setting(
        "most pairs in a chunk, the unit of work, retry and resuming", 256, group="work", positive=True
    )
    # A resumed run may have other limits than before.
    sandbox: Sandbox = field(default=Sandbox(), metadata={"group": "work", "identity": False})
    accelerator: str = setting(
        "GPU of the workers that score, such as 'type:nvidia-tesla-t4;count:1;install-nvidia-driver:5xx'",
        "",
        group="Dataflow",
        identity=False,
        type=accelerator,
        metavar="SPEC",
    )
    min_ram: str = setting(
        "memory of the workers that score, such as 16GB",
        "",
        group="Dataflow",
        identity=False,
        type=storage_size,
        metavar="SIZE",
    )
    price_per_hour: float | None = setting(
        "what a worker machine costs an hour, in any currency: run.json then tells what a million pairs cost",
        None,
        group="work",
        identity=False,
        type=price,
        metavar="PRICE",
    )
    output: str = setting(
        "the run's directory, local, gs:// or s3://; an unfinished run in it is resumed",
        group="output",
        identity=False,
        type=path,
        metavar="DIR",
    )
    reuse: str = setting(
        "an earlier run: what it made of files that have not changed since is copied, if its settings were the same",
        "",
        group="output",
        identity=False,
        type=path,
        metavar="DIR",
    )
    retry_failures: tuple[str, ...] = setting(
        "with --reuse: try failures of these reasons again, comma-separated, or all; limits may have been raised since",
        (),
        group="output",
        identity=False,
        metavar="REASONS",
    )
    overwrite: bool = setting("delete an earlier run in that directory first", False, group="output", identity=False)
    metrics_format: str = setting(
        "csv or jsonl: also write the metrics in this format, in a directory of their own",
        "parquet",
        group="output",
        choices=METRICS_FORMATS,
    )
    slice_by: str = setting(
        "a kept field: also summarize the pairs of each of its values", "", group="output", metavar="NAME"
    )
    gate: str = setting(
        "rules to judge the run by; exit code 3 if it fails", "", group="audit", identity=False, metavar="FILE"
    )
    baseline: str = setting(
        "for --gate: a good run, or its summary.json", "", group="audit", identity=False, metavar="PATH"
    )
    quiet: bool = setting("show no progress and no table", False, group="messages", identity=False)
    verbose: bool = setting(
        "show the logs of Beam and TensorFlow, and tracebacks", False, group="messages", identity=False
    )
    beam_flags: tuple[str, ...] = field(default=(), metadata={"identity": False})

    @property
    def batching(self) -> Batching | None:
        """Size of the batches; None: as suits the worker's device."""
        return Batching(self.batch_size, self.batch_size * PIXELS_PER_PAIR) if self.batch_size else None

    @property
    def resource_hints(self) -> dict[str, str]:
        """Beam's hints for the step that scores."""
        hints = {"accelerator": self.accelerator, "min_ram": self.min_ram}
        return {name: hint for name, hint in hints.items() if hint}

    @property
    def columns(self) -> tuple[Column, ...]:
        """The metrics' columns that hold numbers, in order."""
        return (*self.plan.columns, *(self.plan.optimization_columns if self.descent else ()))

    def identity(self) -> dict[str, Any]:
        """The version and every setting that decides a run's rows, as they are written to run.json.

        The fields of the plan and of its protocol stand beside the others. A weights file counts by its hash, not by
        its path.
        """
        named = {f.metadata.get("identity", f.name): getattr(self, f.name) for f in dataclasses.fields(self)}
        settings = {name: _plain(value) for name, value in named.items() if name}
        plan = settings.pop("plan")
        return {"version": __version__, **plan.pop("protocol"), **plan, **settings}


def _plain(value: Any) -> Any:
    """The value as JSON gives it back."""
    match value:
        case WeightsFile():
            return value.sha256
        case Objective():
            return str(value)
        case tuple():
            return [_plain(item) for item in value]
        case Mapping():
            return {name: _plain(item) for name, item in value.items()}
        case _ if dataclasses.is_dataclass(value):
            return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    return value
