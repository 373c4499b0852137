"""Which pairs of a batch have the same target, whose features are then computed once."""

from hashlib import sha256
from typing import NamedTuple

import numpy as np


class SharedTargets(NamedTuple):
    """How the pairs of a batch share their targets.

    Attributes:
        first: of each distinct target, the first pair that has it.
        rows: of each pair, the number of its target among these.
    """

    first: list[int]
    rows: list[int]


def shared_targets(target: np.ndarray) -> SharedTargets | None:
    """How pairs share their targets [B, H, W, 3]; None if every pair has its own."""
    known: dict[bytes, int] = {}
    rows = [known.setdefault(sha256(image).digest(), len(known)) for image in target] if len(target) > 1 else [0]
    if len(known) in (0, len(target)):
        return None
    return SharedTargets([rows.index(number) for number in range(len(known))], rows)
