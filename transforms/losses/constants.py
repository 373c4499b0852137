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

# The powers of MS-SSIM's five octaves.
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# A mean contrast-structure below this is rounding noise, and the slope of its power would overflow.
MS_SSIM_FLOOR = 1e-10

# BT.601: weights of R, G and B, for a luma of 16 / 255 to 235 / 255.
LUMA_WEIGHTS = (65.481 / 255, 128.553 / 255, 24.966 / 255)
LUMA_OFFSET = 16 / 255

# MATLAB's rgb2gray, to the digits that decide its rounding.
RGB2GRAY_WEIGHTS = (0.298936021293775, 0.587043074451121, 0.114020904255103)
GMSD_T = 170.0

# LPIPS' own guard against a division by zero.
LPIPS_EPSILON = 1e-10

# The paper's: they keep the similarities of flat channels defined.
DISTS_C1 = DISTS_C2 = 1e-6

# CIEDE2000: from linear sRGB to XYZ over the white of D65 as the 2-degree observer sees it.
XYZ_OF_RGB = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
) / np.array([[0.95047], [1.0], [1.08883]])
# The formula jumps at opposite hues. Rounding must not put them beyond 180 degrees.
HALF_TURN = 180 + 1e-9
