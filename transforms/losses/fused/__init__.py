"""Losses as fused CPU kernels, for scoring: each reads its input once and keeps everything else in registers and cache.

As TensorFlow ops, LPIPS' distance head takes as long as a third of the network in bfloat16, and SSIM passes over the
images dozens of times. The TensorFlow functions beside this package are the definitions, serve gradients and GPUs, and
cover every loss; the kernels cover those of the usual presets, and tests hold the two equal. They are compiled by
numba at first use and release the interpreter lock.

Images are uint8 or uint16 [H, W, 3] of full range, one pair at a time.
"""

from collections.abc import Callable

import numpy as np

from transforms.losses.fused import lpips, residual, structure

__all__ = ["KERNELS", "lpips"]

# By the name of the loss: (generated, target) -> its value.
KERNELS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "mae": residual.mae,
    "mse": residual.mse,
    "psnr": residual.psnr,
    "sobel_l1": residual.sobel_l1,
    "sobel_l2": residual.sobel_l2,
    "fd_l1": residual.fd_l1,
    "fd_l2": residual.fd_l2,
    "gmsd": structure.gmsd,
    "ssim": structure.ssim,
}
