"""The losses by name: what each computes, in which range, and from which size on. Free of TensorFlow."""

import difflib
import importlib
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Loss:
    """What the program knows about a loss without computing it.

    Attributes:
        name: as typed in `--losses` and in an objective; the name of the column and of the function.
        module: the module of `transforms.losses` that computes it.
        formula: one line; d is generated minus target, D a forward difference, a mean is over H, W and C.
        range: the interval of its values.
        direction: whether `lower` or `higher` means more alike; `none`: it does not compare the pair.
        source: the paper.
        min_side: the smallest height and width for which it is defined, in pixels.
        differentiable: whether it can be part of an objective.
        network: whether it needs a network's features.
    """

    name: str
    module: Literal["pixels", "edges", "structure", "perceptual"]
    formula: str
    range: str
    direction: Literal["lower", "higher", "none"]
    source: str
    min_side: int = 1
    differentiable: bool = True

    @property
    def network(self) -> bool:
        return self.module == "perceptual"


_LOSSES = (
    Loss("mae", "pixels", "mean |d|", "[0, 1]", "lower", "mean absolute error"),
    Loss("mse", "pixels", "mean d²", "[0, 1]", "lower", "mean squared error"),
    Loss(
        name="psnr",
        module="pixels",
        formula="10 log10(1 / mse), in decibels; +inf for an identical pair (null in JSON)",
        range="[0, inf]",
        direction="higher",
        source="peak signal-to-noise ratio of images in [0, 1]",
        differentiable=False,
    ),
    Loss(
        name="charbonnier",
        module="pixels",
        formula="mean sqrt(d² + 0.001²); 0.001 for an identical pair",
        range="[0.001, 1.0001]",
        direction="lower",
        source="Charbonnier et al. 1994; Lai et al. 2017 (LapSRN)",
    ),
    Loss(
        name="sobel_l1",
        module="edges",
        formula="mean |Sobel(d)| over both directions; kernels not normalised, reflected border",
        range="[0, 8]",
        direction="lower",
        source="Sobel and Feldman 1968",
        min_side=2,
    ),
    Loss(
        name="sobel_l2",
        module="edges",
        formula="mean Sobel(d)² over both directions; kernels not normalised, reflected border",
        range="[0, 64]",
        direction="lower",
        source="Sobel and Feldman 1968",
        min_side=2,
    ),
    Loss(
        name="fd_l1",
        module="edges",
        formula="mean |Dy d| + mean |Dx d|, each over its valid pixels",
        range="[0, 4]",
        direction="lower",
        source="forward differences of the residual",
        min_side=2,
    ),
    Loss(
        name="fd_l2",
        module="edges",
        formula="mean (Dy d)² + mean (Dx d)², each over its valid pixels",
        range="[0, 8]",
        direction="lower",
        source="forward differences of the residual",
        min_side=2,
    ),
    Loss(
        name="gdl",
        module="edges",
        formula="mean ||Dy generated| - |Dy target|| + the same in x; blind to the sign of an edge",
        range="[0, 2]",
        direction="lower",
        source="Mathieu, Couprie and LeCun 2016, exponent 1",
        min_side=2,
    ),
    Loss(
        name="multiscale_fd",
        module="edges",
        formula="sum of fd_l1 over every 1st, 2nd, 4th and 8th pixel",
        range="[0, 16]",
        direction="lower",
        source="Ranftl et al. 2022 (MiDaS), gradient matching",
        min_side=9,
    ),
    Loss(
        name="tv",
        module="edges",
        formula="mean |Dy generated| + mean |Dx generated|; the target plays no part",
        range="[0, 2]",
        direction="none",
        source="Rudin, Osher and Fatemi 1992, anisotropic",
        min_side=2,
    ),
    Loss(
        name="gmsd",
        module="structure",
        formula="deviation of (2ab + 170) / (a² + b² + 170); a, b: Prewitt magnitudes of halved luma",
        range="[0, 0.58]",
        direction="lower",
        source="Xue et al. 2014 (GMSD), as the authors' MATLAB code",
        min_side=3,
        differentiable=False,
    ),
    Loss(
        name="ssim",
        module="structure",
        formula="mean of luminance times contrast-structure; 11x11 Gaussian, sigma 1.5, K1 0.01, K2 0.03",
        range="[-1, 1]",
        direction="higher",
        source="Wang et al. 2004 (SSIM), as tf.image.ssim",
        min_side=11,
    ),
    Loss(
        name="ms_ssim",
        module="structure",
        formula="product of five octaves' SSIM terms to the powers .0448 .2856 .3001 .2363 .1333",
        range="[0, 1]",
        direction="higher",
        source="Wang, Simoncelli and Bovik 2003 (MS-SSIM), as tf.image.ssim_multiscale",
        min_side=161,
    ),
    Loss(
        name="lpips_vgg",
        module="perceptual",
        formula="sum over 5 layers of weighted squared differences of unit-length VGG16 features",
        range="[0, inf)",
        direction="lower",
        source="Zhang et al. 2018 (LPIPS 0.1, VGG16)",
        min_side=16,
    ),
    Loss(
        name="vgg_mse",
        module="perceptual",
        formula="sum over layers of mean squared difference of VGG16 features",
        range="[0, inf)",
        direction="lower",
        source="Johnson, Alahi and Fei-Fei 2016",
        min_side=16,
    ),
    Loss(
        name="style",
        module="perceptual",
        formula="sum over layers of mean squared difference of the Gram matrices of VGG16 features, over H·W",
        range="[0, inf)",
        direction="lower",
        source="Gatys, Ecker and Bethge 2016; Johnson, Alahi and Fei-Fei 2016",
        min_side=16,
    ),
)
LOSSES = {loss.name: loss for loss in _LOSSES}

_DIRECTIONS = {
    "lower": "lower is better",
    "higher": "higher is better",
    "none": "neither lower nor higher is better",
}


def get_losses(names: Iterable[str]) -> tuple[Loss, ...]:
    """The losses of these names in the order given, each once.

    Raises:
        ValueError: a name is unknown; the message offers the nearest one.
    """
    names = tuple(dict.fromkeys(names))
    for name in names:
        if name not in LOSSES:
            raise ValueError(unknown_loss_message(name))
    return tuple(LOSSES[name] for name in names)


def unknown_loss_message(name: str) -> str:
    """What was given, what was probably meant, what there is."""
    nearest = difflib.get_close_matches(name.lower(), LOSSES, n=1)
    suggestion = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"unknown loss {name!r}.{suggestion} The losses are: {', '.join(LOSSES)}"


def loss_function(loss: Loss) -> Callable[[Any, Any], Any]:
    """The TensorFlow function `(generated, target) -> [B]` of a loss on pixels. Imports TensorFlow.

    Raises:
        ValueError: the loss works on a network's features, not on pixels.
    """
    if loss.network:
        raise ValueError(f"{loss.name} compares a network's features: it is no function of pixels alone")
    return getattr(importlib.import_module(f"transforms.losses.{loss.module}"), loss.name)


def describe_losses() -> str:
    """Every loss with its formula, range, direction, smallest image and source, for people."""
    return "\n".join(_describe(loss) for loss in LOSSES.values())


def _describe(loss: Loss) -> str:
    facts = [f"in {loss.range}, {_DIRECTIONS[loss.direction]}"]
    if loss.min_side > 1:
        facts.append(f"sides of {loss.min_side} pixels or more")
    if not loss.differentiable:
        facts.append("not for an objective")
    lines = (loss.formula, "; ".join(facts), f"Source: {loss.source}")
    return f"{loss.name}\n" + textwrap.indent("\n".join(lines), "    ")
