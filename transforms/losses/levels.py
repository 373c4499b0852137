"""The scale of the images that kernels take: whole levels, or floats."""

import numpy as np


def full_range(images: np.ndarray) -> float:
    """The value of white: the highest level of uint8 or uint16, or 1 of float32."""
    return float(np.iinfo(images.dtype).max) if images.dtype.kind == "u" else 1.0
