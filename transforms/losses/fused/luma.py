"""Losses of the luma. `pixels` and `structure` define them.

They take float64: in float32 the variance of flat luma would cancel.
"""

import math

import numpy as np

from transforms.losses.constants import LUMA_OFFSET, LUMA_WEIGHTS, RGB2GRAY_WEIGHTS
from transforms.losses.fused.on_maps import OnMaps
from transforms.losses.fused.structure import levels_per_step, rounded_luma, ssim_mean, sum_and_difference
from transforms.losses.levels import full_range


def ssim_luma(generated: np.ndarray, target: np.ndarray) -> float:
    """As `structure.ssim_luma`."""
    ours, theirs = (rounded_luma(image, levels_per_step(image), RGB2GRAY_WEIGHTS) for image in (generated, target))
    return ssim_mean(np.stack([ours + theirs, ours - theirs]), full_range=255)


def _bt601(generated: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The sum of two images' luma and its difference: [2, H, W]."""
    weights = np.array(LUMA_WEIGHTS) / full_range(generated)
    planes: np.ndarray = sum_and_difference(generated, target, weights, 2 * LUMA_OFFSET)
    return planes


def _psnr(planes: np.ndarray) -> float:
    error = float(np.square(planes[1]).mean())
    return -10 * math.log10(error) if error else math.inf


# As `pixels.psnr_y`.
psnr_y = OnMaps(_bt601, _psnr)
# As `structure.ssim_y`.
ssim_y = OnMaps(_bt601, ssim_mean)
