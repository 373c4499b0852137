"""The plan of a run: which losses of every pair, on which weights. It travels to the workers. Free of TensorFlow."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import NamedTuple

from transforms.columns import Column
from transforms.losses.catalog import LOSSES, get_losses
from transforms.losses.networks.specs import LPIPS_LAYERS, NETWORKS, VGG16_LAYERS
from transforms.losses.networks.weights_file import WeightsFile
from transforms.losses.objective import Objective
from transforms.losses.protocol import Protocol
from transforms.settings import setting

PRECISIONS = ("float32", "tensorfloat32", "bfloat16", "float16", "auto")
PIXEL_GRADIENT_COLUMNS = ("pixel_grad_l2", "pixel_grad_linf")
MASK_COVERAGE = Column("mask_coverage", "", "before", "none", "share of the pixels in the mask")
# Larger pictures are evaluated in tiles; a network takes 1.5 kB of memory per pixel of a pair.
WHOLE_PIXELS = 2**23


class BackendError(Exception):
    """The backend that a plan names cannot compute here: it is not installed, or refuses a network."""


class EvaluationError(Exception):
    """The losses of a batch could not be computed: memory ran out, or a pair made TensorFlow fail."""


class OutOfMemoryError(EvaluationError):
    """A device has too little memory for a batch; a smaller one may fit."""


class Family(NamedTuple):
    """A loss and its parts, as far as they are wanted: they compare the same layers, which is done once for all.

    Attributes:
        whole: name of the loss; it need not be wanted itself.
        members: names of the wanted losses.
        layers: that any of them compares, in the order of the whole; empty for a loss on pixels.
    """

    whole: str
    members: tuple[str, ...]
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """The numbers to compute for every pair.

    Attributes:
        losses: names from `catalog.LOSSES`.
        objective: weighted sum of losses, or None.
        pixel_gradient: whether to differentiate the objective to the generated pixels.
        precision: of the networks, from `PRECISIONS`; `auto` takes what the worker's hardware is good at.
        vgg_layers: the layers that losses on a network compare if their rows name none: `vgg_mse`, `style`.
        max_gradient_pixels: larger pairs are scored without a pixel gradient, and not optimized.
        protocol: what is done to both images before any loss.
        weights: by name of the network, its weights file; see `with_weights`.
        backend: what computes networks in float32 on a CPU: `ncnn` or `tensorflow`; see `with_backend`. ncnn computes
            the features of `networks_on_ncnn`; in a plan with a gradient, features and gradient of the networks whose
            row says `gradient_in_bands`. TensorFlow computes everything else.
    """

    losses: tuple[str, ...]
    objective: Objective | None = None
    pixel_gradient: bool = setting(
        "add pixel_grad_l2 and pixel_grad_linf: the objective's gradient at the generated pixels", False
    )
    precision: str = setting(
        "of the network; bfloat16 differs by about 0.1 %%, float16 and, on GPUs, tensorfloat32 by 0.02 %%; auto: what "
        "the hardware is fast in",
        "float32",
        choices=PRECISIONS,
    )
    vgg_layers: tuple[str, ...] = setting(
        f"layers that vgg_mse and style compare, instead of the preset's; from {', '.join(VGG16_LAYERS)}",
        LPIPS_LAYERS,
        metavar="NAMES",
        # A preset may choose others.
        flag_default="",
    )
    max_gradient_pixels: int = setting(
        "pairs of more pixels get no pixel gradient and are not optimized; both take 4 kB of memory per pixel",
        2**22,
        positive=True,
    )
    protocol: Protocol = field(default=Protocol(), metadata={"group": "losses"})
    weights: Mapping[str, WeightsFile] = field(default_factory=dict)
    backend: str = "tensorflow"

    def with_weights(self, paths: Mapping[str, str] = {}) -> "Plan":
        """This plan with a weights file for every network it needs.

        Args:
            paths: by name of the network; for the others this machine's cache serves, and is filled first if need be.

        Raises:
            WeightsError: a file cannot be fetched or read, or its hash differs from the pinned one.
        """
        weights = {name: NETWORKS[name].weights(paths.get(name, "")) for name in self.networks}
        return dataclasses.replace(self, weights=weights)

    def with_backend(self, descends: bool = False) -> "Plan":
        """This plan with ncnn where it helps, if this machine has it. To be asked once for a run, on its launcher.

        Args:
            descends: whether the run optimizes: then ncnn computes the networks through which it knows the gradient.
        """
        # Kernels on its features know no mask.
        in_form = self.precision in ("float32", "auto") and not self.protocol.masked
        if descends or self.pixel_gradient:
            helps = any(NETWORKS[name].gradient_in_bands for name in self.networks)
        else:
            # The other networks come along, because a run without TensorFlow begins seconds earlier.
            helps = any(NETWORKS[name].faster_on_ncnn for name in self.networks_on_ncnn)
        on_ncnn = in_form and helps and find_spec("ncnn")
        return dataclasses.replace(self, backend="ncnn" if on_ncnn else "tensorflow")

    @property
    def objective_losses(self) -> tuple[str, ...]:
        """The losses in the objective."""
        return self.objective.losses if self.objective else ()

    @property
    def columns(self) -> tuple[Column, ...]:
        """The metrics' columns, in order."""
        objective = ("objective",) if self.objective else ()
        gradient = PIXEL_GRADIENT_COLUMNS if self.pixel_gradient else ()
        losses = (
            Column(loss.name, loss.name, "before", loss.direction, self.protocol.described(loss.formula, loss.maskable))
            for loss in get_losses(self.losses)
        )
        coverage = (MASK_COVERAGE,) if self.protocol.masked else ()
        return (*losses, *(Column(name, "", "before", "lower") for name in (*objective, *gradient)), *coverage)

    @property
    def optimization_columns(self) -> tuple[Column, ...]:
        """The columns of numbers that optimizing adds to the metrics, in order."""
        return (
            Column("objective_initial", "", "before", "lower"),
            Column("objective_final", "", "after", "lower"),
            Column("objective_of_saved", "", "after", "lower"),
            Column("steps", "", "", "none"),
            *(
                dataclasses.replace(column, name=f"{column.name}_optimized", when="after")
                for column in self.columns
                if column.loss
            ),
        )

    def computed(self, height: int, width: int) -> tuple[str, ...]:
        """The losses that are computed for images of this size, those of the objective included."""
        wanted = dict.fromkeys((*self.losses, *self.objective_losses))
        whole = self.fits_whole(height, width)
        defined = (name for name in wanted if min(height, width) >= self.smallest_side(name))
        return tuple(name for name in defined if (whole or self.in_tiles(name)) and not self._unmaskable(name))

    def fits_whole(self, height: int, width: int) -> bool:
        """Tell whether images of this size are evaluated in one piece, not in tiles."""
        return height * width <= WHOLE_PIXELS

    def differentiated(self, height: int, width: int) -> bool:
        """Tell whether the objective of images of this size can be differentiated."""
        computed = self.computed(height, width)
        return height * width <= self.max_gradient_pixels and set(self.objective_losses) <= set(computed)

    def _unmaskable(self, loss: str) -> bool:
        return self.protocol.masked and not LOSSES[loss].maskable

    def in_tiles(self, loss: str) -> bool:
        """Tell whether the loss can be evaluated in tiles."""
        network = NETWORKS.get(LOSSES[loss].network)
        return LOSSES[loss].reach is not None and (network is None or bool(network.strides))

    def why_null(self, column: str, height: int, width: int) -> str:
        """The note of a column that is null for images of this size: a reason and its name.

        Reasons are `too_small`, `too_large`, `unmaskable` (the loss knows no mask) and `outside_mask` (it compares no
        position within the pair's mask).
        """
        losses = (column,) if column in LOSSES else self.objective_losses
        if any(map(self._unmaskable, losses)):
            return f"unmaskable:{column}"
        of_gradient = column in PIXEL_GRADIENT_COLUMNS
        defined = self.differentiated(height, width) if of_gradient else {*losses} <= {*self.computed(height, width)}
        if self.protocol.masked and defined:
            return f"outside_mask:{column}"
        small = any(min(height, width) < self.smallest_side(name) for name in losses)
        return f"{'too_small' if small else 'too_large'}:{column}"

    def smallest_side(self, loss: str) -> int:
        """Height and width in pixels below which the loss is not defined."""
        network = NETWORKS.get(LOSSES[loss].network)
        side = network.smallest_side(self.compared_layers(loss)) if network else LOSSES[loss].min_side
        return side + 2 * self.protocol.crop_border

    def compared_layers(self, loss: str) -> tuple[str, ...]:
        """The layers whose features the loss compares; empty for a loss on pixels."""
        return LOSSES[loss].layers or (self.vgg_layers if LOSSES[loss].network else ())

    def families(self, losses: Collection[str]) -> tuple[Family, ...]:
        """The losses, each with the others that are computed at once with it."""
        members: dict[str, tuple[str, ...]] = {}
        for name in losses:
            whole = LOSSES[name].part_of or name
            members[whole] = (*members.get(whole, ()), name)
        return tuple(
            Family(whole, names, tuple(layer for layer in self.compared_layers(whole) if layer in self._needed(names)))
            for whole, names in members.items()
        )

    def layers(self, network: str, losses: Collection[str]) -> tuple[str, ...]:
        """The layers of the network that the losses need; empty if none needs it."""
        return tuple(sorted(self._needed(name for name in losses if LOSSES[name].network == network)))

    def _needed(self, losses: Iterable[str]) -> set[str]:
        return {layer for name in losses for layer in self.compared_layers(name)}

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks that any loss of the plan needs."""
        needed = {LOSSES[name].network for name in (*self.losses, *self.objective_losses)}
        return tuple(name for name in NETWORKS if name in needed)

    @property
    def networks_on_ncnn(self) -> tuple[str, ...]:
        """The networks that ncnn can compute: all losses of the plan on them know its layout."""
        losses = {LOSSES[name] for name in (*self.losses, *self.objective_losses)}
        unknown = {loss.network for loss in losses if not loss.planar_kernel}
        return tuple(name for name in self.networks if name not in unknown)
