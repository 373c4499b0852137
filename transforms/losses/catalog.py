"""The losses by name, one row each. Free of TensorFlow.

A new loss is a row here and a function of a `transforms.losses.pair.Pair`, in the module of its kind.
"""

import difflib
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from transforms.losses.networks.specs import ALEXNET_LAYERS, LPIPS_LAYERS, NETWORKS


@dataclass(frozen=True)
class Loss:
    """A loss: everything the program knows about it without computing it.

    `function` and `kernel` are dotted names, `package.module:name`, so that this module imports no TensorFlow.

    Attributes:
        name: as typed in `--losses` and in an objective; also the name of its column.
        function: `(pair) -> float32 [B]`, where `pair` is a `transforms.losses.pair.Pair`.
        formula: one line; d is generated minus target, D a forward difference, a mean is over H, W and C.
        range: the interval of its values.
        direction: whether `lower` or `higher` means more alike; `none` if the loss does not compare the two images.
        source: the paper.
        min_side: the smallest height and width for which it is defined, in pixels. For a loss on layers that
            `--vgg_layers` chooses: of the usual ones.
        differentiable: whether it can be part of an objective.
        network: name in `specs.NETWORKS` of the network whose features it compares; empty for a loss on pixels.
        layers: the layers it compares; empty for those that `--vgg_layers` chooses.
        kernel: the same on a CPU, fused; empty if there is none. See `transforms.losses.fused`.
        kernel_memory: of a loss on pixels, bytes that the kernel takes per pixel of a pair; None: too many for pictures
            beyond `plan.WHOLE_PIXELS`.
        gradient_kernel: of a loss on features, value and gradient on a CPU, fused; empty if there is none.
        planar_kernel: of a loss on features, a `transforms.losses.fused.planar.PlanarLoss` that computes the same on
            maps whose channels are rows, as ncnn returns them, in sums that add up over tiles; empty if there is none.
        reach: how many pixels around a position its maps depend on, beyond a network's own reach, if it reduces over
            positions by `pair.over` alone; then large pictures are evaluated in tiles. A loss on features must take
            every position by itself, and say 0. None: pictures beyond `plan.WHOLE_PIXELS` are too large for it.
        maskable: whether it can leave out what is outside of a mask: what it compares at a position lies around it, and
            it reduces over positions by `pair.over` alone: by `mean`, `moments`, `quantile` or `mean_of_features`.
        map: `(pair) -> [B, h, w]`, at least 0: how far it finds the images different at every position, for reports; at
            each border it may lack what its windows lack. Empty if there is none.
        gradient_is_flat: whether its gradient takes a few lengths only, as that of absolute values does, whatever the
            size of the error: a picture of it is noise.
        shares: of a sum over layers: `(pair) -> {layer: float32 [B]}`, which add up to `function`; empty if no loss is
            a part of it.
        part_of: name of the loss whose share of one layer it is; empty: it is a loss of its own.
    """

    name: str
    function: str
    formula: str
    range: str
    direction: Literal["lower", "higher", "none"]
    source: str
    min_side: int = 1
    differentiable: bool = True
    network: str = ""
    layers: tuple[str, ...] = ()
    kernel: str = ""
    kernel_memory: int | None = None
    gradient_kernel: str = ""
    planar_kernel: str = ""
    reach: int | None = None
    maskable: bool = False
    map: str = ""
    gradient_is_flat: bool = False
    shares: str = ""
    part_of: str = ""


def _with_parts(loss: Loss) -> tuple[Loss, ...]:
    """A loss that is a sum over layers, and its part at every layer."""
    return (
        loss,
        *(
            replace(
                loss,
                name=f"{loss.name}_{layer}",
                formula=f"the part of {layer} in {loss.name}",
                min_side=NETWORKS[loss.network].smallest_side((layer,)),
                layers=(layer,),
                part_of=loss.name,
            )
            for layer in loss.layers
        ),
    )


def _losses_on_vgg16(suffix: str, network: str, features: str) -> tuple[Loss, Loss]:
    return (
        Loss(
            name=f"vgg_mse{suffix}",
            function="transforms.losses.perceptual:feature_mse",
            formula=f"sum over layers of mean squared difference of {features}",
            range="[0, inf)",
            direction="lower",
            source="Johnson, Alahi and Fei-Fei 2016",
            min_side=16,
            network=network,
            planar_kernel="transforms.losses.fused.planar:feature_mse",
            reach=0,
        ),
        Loss(
            name=f"style{suffix}",
            function="transforms.losses.perceptual:style",
            formula=f"sum over layers of mean squared difference of the Gram matrices of {features}, over H·W",
            range="[0, inf)",
            direction="lower",
            source="Gatys, Ecker and Bethge 2016; Johnson, Alahi and Fei-Fei 2016",
            min_side=16,
            network=network,
            planar_kernel="transforms.losses.fused.planar:style",
            reach=0,
        ),
    )


_LOSSES = (
    Loss(
        name="mae",
        function="transforms.losses.pixels:mae",
        formula="mean |d|",
        range="[0, 1]",
        direction="lower",
        source="mean absolute error",
        kernel="transforms.losses.fused.residual:mae",
        kernel_memory=0,
        reach=0,
        maskable=True,
        gradient_is_flat=True,
    ),
    Loss(
        name="mse",
        function="transforms.losses.pixels:mse",
        formula="mean d²",
        range="[0, 1]",
        direction="lower",
        source="mean squared error",
        kernel="transforms.losses.fused.residual:mse",
        kernel_memory=0,
        reach=0,
        maskable=True,
    ),
    Loss(
        name="psnr",
        function="transforms.losses.pixels:psnr",
        formula="10 log10(1 / mse), in decibels; +inf for an identical pair (null in JSON)",
        range="[0, inf]",
        direction="higher",
        source="peak signal-to-noise ratio of images in [0, 1]",
        differentiable=False,
        kernel="transforms.losses.fused.residual:psnr",
        kernel_memory=0,
        reach=0,
        maskable=True,
    ),
    Loss(
        name="psnr_y",
        function="transforms.losses.pixels:psnr_y",
        formula="10 log10(255² / mse of Y), Y = 65.481 R + 128.553 G + 24.966 B + 16; +inf for an identical pair",
        range="[1.3, inf]",
        direction="higher",
        source="PSNR of BT.601's luma, not rounded, as BasicSR's test_y_channel",
        differentiable=False,
        kernel="transforms.losses.fused.luma:psnr_y",
        reach=0,
        maskable=True,
    ),
    Loss(
        name="charbonnier",
        function="transforms.losses.pixels:charbonnier",
        formula="mean sqrt(d² + 0.001²); 0.001 for an identical pair",
        range="[0.001, 1.0001]",
        direction="lower",
        source="Charbonnier et al. 1994; Lai et al. 2017 (LapSRN)",
        reach=0,
        maskable=True,
        gradient_is_flat=True,
    ),
    Loss(
        name="sobel_l1",
        function="transforms.losses.edges:sobel_l1",
        formula="mean |Sobel(d)| over both directions; kernels not normalised, reflected border",
        range="[0, 8]",
        direction="lower",
        source="Sobel and Feldman 1968",
        min_side=2,
        kernel="transforms.losses.fused.residual:sobel_l1",
        kernel_memory=12,
        reach=1,
        maskable=True,
        gradient_is_flat=True,
    ),
    Loss(
        name="sobel_l2",
        function="transforms.losses.edges:sobel_l2",
        formula="mean Sobel(d)² over both directions; kernels not normalised, reflected border",
        range="[0, 64]",
        direction="lower",
        source="Sobel and Feldman 1968",
        min_side=2,
        kernel="transforms.losses.fused.residual:sobel_l2",
        kernel_memory=12,
        reach=1,
        maskable=True,
    ),
    Loss(
        name="fd_l1",
        function="transforms.losses.edges:fd_l1",
        formula="mean |Dy d| + mean |Dx d|, each over its valid pixels",
        range="[0, 4]",
        direction="lower",
        source="forward differences of the residual",
        min_side=2,
        kernel="transforms.losses.fused.residual:fd_l1",
        kernel_memory=12,
        reach=1,
        maskable=True,
        gradient_is_flat=True,
    ),
    Loss(
        name="fd_l2",
        function="transforms.losses.edges:fd_l2",
        formula="mean (Dy d)² + mean (Dx d)², each over its valid pixels",
        range="[0, 8]",
        direction="lower",
        source="forward differences of the residual",
        min_side=2,
        kernel="transforms.losses.fused.residual:fd_l2",
        kernel_memory=12,
        reach=1,
        maskable=True,
    ),
    Loss(
        name="gdl",
        function="transforms.losses.edges:gdl",
        formula="mean ||Dy generated| - |Dy target|| + the same in x; blind to the sign of an edge",
        range="[0, 2]",
        direction="lower",
        source="Mathieu, Couprie and LeCun 2016, exponent 1",
        min_side=2,
        reach=1,
        maskable=True,
        gradient_is_flat=True,
    ),
    Loss(
        name="multiscale_fd",
        function="transforms.losses.edges:multiscale_fd",
        formula="sum of fd_l1 over every 1st, 2nd, 4th and 8th pixel",
        range="[0, 16]",
        direction="lower",
        source="Ranftl et al. 2022 (MiDaS), gradient matching",
        min_side=9,
        reach=8,
        maskable=True,
        gradient_is_flat=True,
    ),
    Loss(
        name="tv",
        function="transforms.losses.edges:tv",
        formula="mean |Dy generated| + mean |Dx generated|; the target plays no part",
        range="[0, 2]",
        direction="none",
        source="Rudin, Osher and Fatemi 1992, anisotropic",
        min_side=2,
        reach=1,
        maskable=True,
        gradient_is_flat=True,
    ),
    Loss(
        name="gmsd",
        function="transforms.losses.structure:gmsd",
        formula="deviation of (2ab + 170) / (a² + b² + 170); a, b: Prewitt magnitudes of halved luma",
        range="[0, 0.58]",
        direction="lower",
        source="Xue et al. 2014 (GMSD), as the authors' MATLAB code",
        min_side=3,
        differentiable=False,
        kernel="transforms.losses.fused.structure:gmsd",
        kernel_memory=6,
        reach=2,
        maskable=True,
    ),
    Loss(
        name="ssim",
        function="transforms.losses.structure:ssim",
        formula="mean of luminance times contrast-structure; 11x11 Gaussian, sigma 1.5, K1 0.01, K2 0.03",
        range="[-1, 1]",
        direction="higher",
        source="Wang et al. 2004 (SSIM), as tf.image.ssim",
        min_side=11,
        kernel="transforms.losses.fused.structure:ssim",
        kernel_memory=24,
        reach=10,
        maskable=True,
        map="transforms.losses.structure:ssim_map",
    ),
    Loss(
        name="ssim_y",
        function="transforms.losses.structure:ssim_y",
        formula="ssim of Y = 65.481 R + 128.553 G + 24.966 B + 16 instead of R, G and B, over 255",
        range="[-1, 1]",
        direction="higher",
        source="SSIM of BT.601's luma, not rounded, as BasicSR's test_y_channel",
        min_side=11,
        kernel="transforms.losses.fused.luma:ssim_y",
        reach=10,
        maskable=True,
        map="transforms.losses.structure:ssim_y_map",
    ),
    Loss(
        name="ssim_luma",
        function="transforms.losses.structure:ssim_luma",
        formula="ssim of MATLAB's rgb2gray in whole levels, over 255, instead of R, G and B",
        range="[-1, 1]",
        direction="higher",
        source="Wang et al. 2004 (SSIM), as the authors' ssim_index.m",
        min_side=11,
        differentiable=False,
        kernel="transforms.losses.fused.luma:ssim_luma",
        reach=10,
        maskable=True,
        map="transforms.losses.structure:ssim_luma_map",
    ),
    Loss(
        name="ms_ssim",
        function="transforms.losses.structure:ms_ssim",
        formula="product of five octaves' SSIM terms to the powers .0448 .2856 .3001 .2363 .1333",
        range="[0, 1]",
        direction="higher",
        source="Wang, Simoncelli and Bovik 2003 (MS-SSIM), as tf.image.ssim_multiscale",
        min_side=161,
        kernel="transforms.losses.fused.structure:ms_ssim",
        reach=160,
    ),
    Loss(
        name="ciede2000",
        function="transforms.losses.color:ciede2000",
        formula="mean CIEDE2000 of the pixels, of sRGB in CIELAB under D65, kL = kC = kH = 1",
        range="[0, 120]",
        direction="lower",
        source="Sharma, Wu and Dalal 2005",
        differentiable=False,
        kernel="transforms.losses.fused.color:ciede2000",
        reach=0,
        maskable=True,
    ),
    Loss(
        name="ciede2000_p95",
        function="transforms.losses.color:ciede2000_p95",
        formula="95th percentile of the pixels' CIEDE2000, interpolated",
        range="[0, 120]",
        direction="lower",
        source="Sharma, Wu and Dalal 2005",
        differentiable=False,
        kernel="transforms.losses.fused.color:ciede2000_p95",
        reach=0,
        maskable=True,
    ),
    Loss(
        name="flip",
        function="transforms.losses.flip:flip",
        formula="mean of the pixels' FLIP at 67 pixels per degree: a colour difference, raised by edges and points",
        range="[0, 1]",
        direction="lower",
        source="Andersson et al. 2020 (FLIP), low dynamic range",
        kernel="transforms.losses.fused.flip:flip",
        # The radius of its widest filter.
        reach=10,
        maskable=True,
        map="transforms.losses.flip:flip_map",
    ),
    Loss(
        name="ssimulacra2",
        function="transforms.losses.ssimulacra2:ssimulacra2",
        formula="100 - 10 e^0.63 of a cubic e of 108 weighted means and 4-norms of errors in XYB at six octaves",
        range="(-inf, 100]",
        direction="higher",
        source="Sneyers 2022 and 2023 (SSIMULACRA 2.1), as libjxl",
        min_side=8,
        kernel="transforms.losses.fused.ssimulacra2:ssimulacra2",
    ),
    *_with_parts(
        Loss(
            name="lpips_vgg",
            function="transforms.losses.perceptual:lpips",
            formula="sum over 5 layers of weighted squared differences of unit-length VGG16 features",
            range="[0, inf)",
            direction="lower",
            source="Zhang et al. 2018 (LPIPS 0.1, VGG16)",
            min_side=16,
            network="vgg16_lpips",
            layers=LPIPS_LAYERS,
            kernel="transforms.losses.fused.lpips:lpips",
            gradient_kernel="transforms.losses.fused.lpips:lpips_and_gradient",
            planar_kernel="transforms.losses.fused.planar:lpips",
            reach=0,
            maskable=True,
            map="transforms.losses.perceptual:lpips_map",
            shares="transforms.losses.perceptual:lpips_shares",
        ),
    ),
    *_with_parts(
        Loss(
            name="lpips_alex",
            function="transforms.losses.perceptual:lpips",
            formula="sum over 5 layers of weighted squared differences of unit-length AlexNet features",
            range="[0, inf)",
            direction="lower",
            source="Zhang et al. 2018 (LPIPS 0.1, AlexNet), the LPIPS that most papers report",
            min_side=31,
            network="alexnet_lpips",
            layers=tuple(ALEXNET_LAYERS),
            kernel="transforms.losses.fused.lpips:lpips",
            gradient_kernel="transforms.losses.fused.lpips:lpips_and_gradient",
            planar_kernel="transforms.losses.fused.planar:lpips",
            reach=0,
            maskable=True,
            map="transforms.losses.perceptual:lpips_map",
            shares="transforms.losses.perceptual:lpips_shares",
        ),
    ),
    Loss(
        name="dists",
        function="transforms.losses.perceptual:dists",
        formula="1 - weighted similarities of the means and covariances of RGB and VGG16 features; nothing is resized",
        range="[0, 2]",
        direction="lower",
        source="Ding et al. 2020 (DISTS), as the authors' PyTorch code",
        min_side=16,
        network="vgg16_dists",
        layers=LPIPS_LAYERS,
        planar_kernel="transforms.losses.fused.planar:dists",
        reach=0,
    ),
    *_losses_on_vgg16("", "vgg16_lpips", "VGG16 features"),
    *_losses_on_vgg16("_keras", "vgg16_keras", "features of Keras' VGG16"),
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


def parts_of(name: str) -> tuple[Loss, ...]:
    """The parts of a loss by layer, shallowest first; empty if it has none."""
    return tuple(loss for loss in LOSSES.values() if loss.part_of == name)


def unknown_loss_message(name: str) -> str:
    """The message for a name that no loss has: it offers the nearest one, and lists them all."""
    names = [loss.name for loss in LOSSES.values() if not loss.part_of]
    nearest = difflib.get_close_matches(name.lower(), LOSSES, n=1)
    suggestion = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"unknown loss {name!r}.{suggestion} The losses are: {', '.join(names)}"


def describe_losses() -> str:
    """A text that lists every loss with its formula, range, direction, smallest image and source.

    The parts of a loss are named with it.
    """
    return "\n".join(_describe(loss) for loss in LOSSES.values() if not loss.part_of)


def _describe(loss: Loss) -> str:
    facts = [f"in {loss.range}, {_DIRECTIONS[loss.direction]}"]
    if loss.min_side > 1:
        facts.append(f"sides of {loss.min_side} pixels or more")
    if not loss.differentiable:
        facts.append("not for an objective")
    named = ", ".join(part.name for part in parts_of(loss.name))
    parts = [f"By layer: {named}"] if named else []
    lines = (loss.formula, "; ".join(facts), *parts, f"Source: {loss.source}")
    return f"{loss.name}\n" + textwrap.indent("\n".join(lines), "    ")
