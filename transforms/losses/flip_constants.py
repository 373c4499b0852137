"""Constants that FLIP's definition and its kernel share. Free of TensorFlow, as kernels are."""

import math

import numpy as np

# At the authors' default, 0.7 m from a display of 0.7 m and 3840 pixels.
PIXELS_PER_DEGREE = 3840 * math.pi / 180
# From linear sRGB to XYZ over its white, D65.
XYZ_OF_RGB = np.array(
    [
        [10135552 / 24577794, 8788810 / 24577794, 4435075 / 24577794],
        [2613072 / 12288897, 8788810 / 12288897, 887015 / 12288897],
        [1425312 / 73733382, 8788810 / 73733382, 70074185 / 73733382],
    ]
)
XYZ_OF_RGB /= np.array([[0.950428545], [1.0], [1.088900371]])
# From XYZ over its white to YCxCz. The constant of Y, -16, is left out: every filter here keeps a constant.
_OPPONENT_OF_XYZ = np.array([[0.0, 116.0, 0.0], [500.0, -500.0, 0.0], [0.0, 200.0, -200.0]])
OPPONENT_OF_RGB = _OPPONENT_OF_XYZ @ XYZ_OF_RGB
RGB_OF_OPPONENT = np.linalg.inv(OPPONENT_OF_RGB)
COLOR_EXPONENT = 0.7
# The largest colour difference, between green and blue, to the power of the exponent.
LARGEST = 41.27609841185734
# Differences up to this part of the largest fill [0, 0.95], greater ones the rest.
PART, PART_FILLS = 0.4, 0.95
LAB_LIMIT = (6 / 29) ** 3


def _sensitivity() -> tuple[np.ndarray, np.ndarray]:
    """Contrast sensitivity to light, red-green and twice yellow-blue: taps [K, 4] of sum 1, and their weights [4]."""
    heights, widths = np.array([1.0, 1.0, 34.1, 13.5]), np.array([0.0047, 0.0053, 0.04, 0.025])
    radius = math.ceil(3 * math.sqrt(widths.max() / (2 * math.pi**2)) * PIXELS_PER_DEGREE)
    degrees = np.arange(-radius, radius + 1)[:, np.newaxis] / PIXELS_PER_DEGREE
    taps = np.exp(-((math.pi * degrees) ** 2) / widths)
    sums = taps.sum(axis=0)
    weights = heights * np.sqrt(math.pi / widths) * sums**2
    weights[:2] = 1.0
    weights[2:] /= weights[2:].sum()
    return taps / sums, weights


def _features() -> tuple[np.ndarray, np.ndarray]:
    """Detectors of edges and points across, then down: the taps [K, 4] along the rows, and along the columns."""
    deviation = 0.5 * 0.082 * PIXELS_PER_DEGREE
    radius = math.ceil(3 * deviation)
    offsets = np.arange(-radius, radius + 1)
    smooth = np.exp(-(offsets**2) / (2 * deviation**2))
    edge, point = -offsets * smooth, ((offsets / deviation) ** 2 - 1) * smooth
    smooth /= smooth.sum()
    edge, point = (np.where(t > 0, t / t[t > 0].sum(), t / -t[t < 0].sum()) for t in (edge, point))
    return np.stack([edge, point, smooth, smooth], axis=1), np.stack([smooth, smooth, edge, point], axis=1)


SENSITIVITY, SENSITIVITY_WEIGHTS = _sensitivity()
FEATURES_ACROSS, FEATURES_DOWN = _features()
