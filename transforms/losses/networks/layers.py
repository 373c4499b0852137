"""Layer, of which the networks' architectures are chains: both backends compute them. Free of TensorFlow."""

from typing import Literal, NamedTuple

import numpy as np


class Layer(NamedTuple):
    """A layer: a pooling of every second pixel, then a convolution with ReLU; either may be missing.

    Attributes:
        convolution: name of its tensors; empty: a pooling alone.
        pooled: pixels a side that the pooling before takes at once; 0: no pooling.
        pooling: `max` halves the features, rounding down; `l2`, of 3 pixels a side, is the root of a weighted mean of
            squares, with zeros around, and rounds up.
        stride: of the convolution.
        padding: zeros around the convolution's input; None: as many as keep its size.
    """

    convolution: str = ""
    pooled: int = 0
    pooling: Literal["max", "l2"] = "max"
    stride: int = 1
    padding: int | None = None


# Weights of an `l2` pooling: a Hanning window [3, 3] of sum 1.
L2_WINDOW = np.outer((0.25, 0.5, 0.25), (0.25, 0.5, 0.25)).astype(np.float32)
# Keeps the slope of its root finite.
L2_EPSILON = 1e-12
