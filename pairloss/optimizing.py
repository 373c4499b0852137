"""Optimize images held in memory or in files: the descent of a run without the run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pairloss.images import ImagePair, Images, read_pairs
from transforms.descent.settings import DEFAULT_OBJECTIVE, Descent
from transforms.images.decode import DecodePolicy
from transforms.losses.objective import parse_objective
from transforms.losses.plan import EvaluationError, Plan
from transforms.scoring.batch import batching_for
from transforms.scoring.optimize import load_optimizer, optimize_rows

if TYPE_CHECKING:
    from transforms.descent.slots import Start
    from transforms.losses.objective_function import ObjectiveFunction

_TYPES: dict[str, Any] = {"steps": np.int32, "stop_reason": np.str_}


def optimize(
    generated: Images,
    target: Images,
    objective: str = DEFAULT_OBJECTIVE,
    *,
    descent: Descent = Descent(),
    policy: DecodePolicy = DecodePolicy(),
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Move generated images towards their targets by gradient descent, each by itself.

    The descent starts at 8 bits, because its result is held against that image; a 16-bit target is kept as it is.

    Args:
        generated: as for `score`, in uint8 or uint16.
        target: as `generated`.
        objective: weighted sum of differentiable losses, to be minimized.
        descent: how to descend, and when to stop.
        policy: what to decode from files, and what to do where the two files of a pair differ in size.

    Returns:
        the optimized images, uint8 [H, W, 3] each, and columns [B]: the objective of the start, of the lowest point
        and of the image as it is returned; the steps made, and why the descent stopped.

    Raises:
        ValueError: as for `score`, the images are floats, or one is too small for the objective.
        OSError: a file cannot be read.
        WeightsError: the weights of a network cannot be fetched.
        EvaluationError: a pair could not be optimized, usually for lack of memory.

    Example:
        >>> import numpy as np
        >>> from pairloss import Descent, optimize
        >>> target = np.full((16, 16, 3), 100, np.uint8)
        >>> images, columns = optimize(target + np.uint8(9), target, "mse", descent=Descent(max_steps=5))
        >>> images[0].shape
        (16, 16, 3)
        >>> columns["objective_final"] < columns["objective_initial"]
        array([ True])
    """
    from transforms.descent.slots import Optimized

    function = _objective_function(str(parse_objective(objective)))
    count, pairs = read_pairs(generated, target, policy)
    batching = batching_for(function.device.memory_bytes)
    groups: dict[tuple[int, int], dict[int, ImagePair]] = {}
    for pair in pairs:
        _check(pair, function.smallest_side)
        groups.setdefault(pair.generated.shape[:2], {})[pair.row] = pair
    results: dict[int, Optimized] = {}
    for size, group in groups.items():
        slots = batching.pairs_of(*size)
        for row, result in optimize_rows(partial(_starts, group), tuple(group), slots, function, descent):
            if result is None:
                raise EvaluationError(f"pair {row} could not be optimized; there may be too little memory for its size")
            results[row] = result
    rows = [results[row] for row in range(count)]
    names = [field.name for field in fields(Optimized) if field.name not in ("key", "image", "trace")]
    columns = {name: np.array([getattr(row, name) for row in rows], _TYPES.get(name, np.float32)) for name in names}
    return [row.image for row in rows], columns


@lru_cache(maxsize=2)
def _objective_function(objective: str) -> "ObjectiveFunction":
    return load_optimizer(Plan((), parse_objective(objective)).with_weights()).objective


def _check(pair: ImagePair, smallest_side: int) -> None:
    if pair.generated.dtype == np.float32:
        raise ValueError(
            f"pair {pair.row} holds floats; the descent starts at 8 bits: give np.rint(images * 255).astype(np.uint8)"
        )
    height, width = pair.generated.shape[:2]
    if min(height, width) < smallest_side:
        raise ValueError(
            f"pair {pair.row} is {width}x{height}; the objective needs sides of {smallest_side} pixels or more"
        )


def _starts(group: Mapping[int, ImagePair], rows: Sequence[int]) -> "Iterator[Start]":
    from transforms.descent.slots import Start

    return (Start(row, group[row].generated, group[row].target) for row in rows)
