"""How to descend and when to stop: plain values that travel to the workers. Free of TensorFlow."""

import math
from dataclasses import dataclass

from transforms.settings import setting

METHODS = ("adam", "sgd", "lbfgs")

# The descent of a pair ends for the first of these that holds.
STOP_REASONS = {
    "non_finite": "the objective or its gradient was not finite, also at smaller steps from the best image",
    "target_reached": "the objective came down to `target_loss`, or to `target_ratio` of its start",
    "zero_gradient": "the gradient is 0: no direction leads down, as for an identical pair",
    "plateau": "`patience` steps in a row did not bring the objective down by `rtol`",
    "max_steps": "`max_steps` steps were made",
}

# Edges by forward differences (which, unlike Sobel, see the finest checkerboard), pixels, and what people see.
DEFAULT_OBJECTIVE = "lpips_vgg + 100*fd_l2 + 100*mse"


@dataclass(frozen=True)
class Descent:
    """How to descend and when to stop, for each pair by itself.

    Attributes:
        method: one of `METHODS`.
        learning_rate: how far the first step moves a pixel, where 1 is the way from black to white: every pixel
            (`adam`), or the root mean square over the pixels (`sgd`, `lbfgs`).
        max_steps: the largest number of steps. A step costs one evaluation of objective and gradient.
        target_loss: stop where the objective is not above it.
        target_ratio: stop where the objective is not above this fraction of its start; it has no effect unless the
            objective starts above 0.
        patience: stop after this many steps without progress. Halfway there, the descent returns to its best image and
            goes on at half the rate.
        rtol: a step is progress if the objective falls by more than this fraction of its value at the last progress.
        max_change: how far a pixel may move from the start, in [0, 1] as for `learning_rate`; rounded down to whole
            levels of 8 bits.
        trace_every: keep the objective of every n-th step; 0 for none.

    Raises:
        ValueError: a value is out of its range.
    """

    method: str = setting("the method of descent", "lbfgs", choices=METHODS)
    learning_rate: float = setting("in pixel units, where images are in [0, 1]", 0.01)
    max_steps: int = setting("stop after this many steps", 50)
    target_loss: float | None = setting("stop once the objective is as small as this", None)
    target_ratio: float | None = setting("stop once the objective is this part of its start", None)
    patience: int = setting("stop after this many steps without progress", 10)
    rtol: float = setting("progress is a relative fall of the objective above this", 1e-3)
    max_change: float | None = setting("the most that a pixel may change, in [0, 1]", None)
    trace_every: int = setting("keep the objective of every Nth step as the column trace", 0)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method {self.method!r} is unknown: take one of {', '.join(METHODS)}")
        _check("learning_rate", self.learning_rate, 0 < self.learning_rate <= 1, "above 0, at most 1", "0.01")
        _check("max_steps", self.max_steps, self.max_steps >= 1, "a whole number of 1 or more", "50")
        _check("patience", self.patience, self.patience >= 1, "a whole number of 1 or more", "10")
        _check("rtol", self.rtol, 0 <= self.rtol < 1, "0 or more, below 1", "0.001")
        _check("trace_every", self.trace_every, self.trace_every >= 0, "a whole number of 0 or more", "1 or 0 for none")
        if self.target_loss is not None:
            _check("target_loss", self.target_loss, math.isfinite(self.target_loss), "a finite number", "none")
        if (ratio := self.target_ratio) is not None:
            _check("target_ratio", ratio, 0 < ratio <= 1, "above 0, at most 1", "0.1 for a tenth of the start")
        if (change := self.max_change) is not None:
            _check("max_change", change, 1 / 255 <= change <= 1, "from 1/255, one level, to 1", "0.05 or none")

    @property
    def max_levels(self) -> int:
        """`max_change` in whole levels of 8 bits."""
        # Slightly more, so that k / 255, as typed or computed, is k levels and not k - 1.
        return 255 if self.max_change is None else math.floor(self.max_change * 255 + 1e-6)


def _check(name: str, value: float, valid: bool, allowed: str, remedy: str) -> None:
    if not valid:
        raise ValueError(f"{name} is {value}; it must be {allowed}. Try {remedy}")
