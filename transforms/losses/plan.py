"""What to compute for every pair, and with what: plain values that travel to the workers, no TensorFlow."""

from collections.abc import Collection
from dataclasses import dataclass

from transforms.columns import Column
from transforms.losses.catalog import get_losses
from transforms.losses.networks.layers import LAYERS, LPIPS_LAYERS, smallest_side
from transforms.losses.networks.weights_file import WeightsFile
from transforms.losses.objective import Objective
from transforms.settings import setting

PRECISIONS = ("float32", "bfloat16", "float16", "auto")
NETWORKS = ("lpips", "keras")
PIXEL_GRADIENT_COLUMNS = ("pixel_grad_l2", "pixel_grad_linf")

# The losses that take the layers and the network of the plan; lpips_vgg is fitted to its own.
_ON_CHOSEN_LAYERS = ("vgg_mse", "style")


class EvaluationError(Exception):
    """The losses of a batch could not be computed: memory ran out, or a pair is to blame."""


@dataclass(frozen=True)
class Plan:
    """What to compute for every pair.

    Attributes:
        losses: names from `catalog.LOSSES`.
        objective: weighted sum of losses, or None.
        pixel_gradient: whether to differentiate the objective to the generated pixels.
        precision: of the networks, from `PRECISIONS`; `auto`: what the worker's hardware is good at.
        vgg: whose weights `vgg_mse` and `style` use: `lpips` or `keras`.
        vgg_layers: the layers `vgg_mse` and `style` compare.
        lpips_weights: needed if a loss uses that network.
        keras_weights: needed if a loss uses that network.
    """

    losses: tuple[str, ...]
    objective: Objective | None = None
    pixel_gradient: bool = setting(
        "add pixel_grad_l2 and pixel_grad_linf: the objective's gradient at the generated pixels", False
    )
    precision: str = setting(
        "of the network; bfloat16 differs by about 0.1 %%, float16 by 0.02 %%; auto: what the hardware is fast in",
        "float32",
        choices=PRECISIONS,
    )
    vgg: str = setting(
        "whose VGG16 vgg_mse and style use: the one LPIPS was fitted to, or Keras' ImageNet one",
        "lpips",
        choices=NETWORKS,
    )
    vgg_layers: tuple[str, ...] = setting(
        f"layers that vgg_mse and style compare, instead of the preset's; from {', '.join(LAYERS)}",
        LPIPS_LAYERS,
        metavar="NAMES",
        # A preset may choose others.
        flag_default="",
    )
    lpips_weights: WeightsFile | None = None
    keras_weights: WeightsFile | None = None

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
            Column(self._column_name(loss.name), loss.name, "before", loss.direction, loss.formula)
            for loss in get_losses(self.losses)
        )
        return (*losses, *(Column(name, "", "before", "lower") for name in (*objective, *gradient)))

    @property
    def optimization_columns(self) -> tuple[Column, ...]:
        """The columns of numbers that optimizing adds to the metrics, in order."""
        losses = get_losses(self.losses)
        return (
            Column("objective_initial", "", "before", "lower"),
            Column("objective_final", "", "after", "lower"),
            Column("objective_of_saved", "", "after", "lower"),
            Column("steps", "", "", "none"),
            *(
                Column(f"{self._column_name(loss.name)}_optimized", loss.name, "after", loss.direction, loss.formula)
                for loss in losses
            ),
        )

    def _column_name(self, loss: str) -> str:
        """The loss's column names the network where that is not the usual one."""
        return f"{loss}_keras" if self.vgg == "keras" and loss in _ON_CHOSEN_LAYERS else loss

    def computed(self, height: int, width: int) -> tuple[str, ...]:
        """The losses to compute for images of this size: the rest is not defined there."""
        wanted = dict.fromkeys((*self.losses, *self.objective_losses))
        return tuple(name for name in wanted if min(height, width) >= self.smallest_side(name))

    def smallest_side(self, loss: str) -> int:
        """Height and width in pixels below which the loss is not defined."""
        return smallest_side(self.vgg_layers) if loss in _ON_CHOSEN_LAYERS else get_losses([loss])[0].min_side

    def layers(self, network: str, losses: Collection[str]) -> tuple[str, ...]:
        """The layers of the network that the losses need; empty if none needs it."""
        layers: set[str] = set()
        if network == "lpips" and "lpips_vgg" in losses:
            layers.update(LPIPS_LAYERS)
        if network == self.vgg and not set(_ON_CHOSEN_LAYERS).isdisjoint(losses):
            layers.update(self.vgg_layers)
        return tuple(sorted(layers))

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks that any loss of the plan needs."""
        losses = (*self.losses, *self.objective_losses)
        return tuple(network for network in NETWORKS if self.layers(network, losses))
