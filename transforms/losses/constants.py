"""Constants that a loss's definition and its kernel share. Free of TensorFlow, as kernels are."""

import numpy as np

SSIM_C1 = 0.01**2
SSIM_C2 = 0.03**2


def _gaussian(size: int, sigma: float) -> np.ndarray:
    """Taps [size] of a centred Gaussian of sum 1."""
    offsets = np.arange(size) - (size - 1) / 2
    taps = np.exp(-0.5 * np.square(offsets / sigma))
    return taps / taps.sum()


SSIM_WINDOW = _gaussian(size=11, sigma=1.5)

# MATLAB's rgb2gray, to the digits that decide its rounding.
RGB2GRAY_WEIGHTS = (0.298936021293775, 0.587043074451121, 0.114020904255103)
GMSD_T = 170.0

# LPIPS' own guard against a division by zero.
LPIPS_EPSILON = 1e-10

# Of the paper: they keep the similarities of flat channels defined.
DISTS_C1 = DISTS_C2 = 1e-6
