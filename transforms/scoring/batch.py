"""Group decoded pairs into batches of one shape."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np


class Pair(Protocol):
    """Anything with a generated image [H, W, 3], a target of the same shape and type, and perhaps a mask [H, W]."""

    @property
    def generated(self) -> np.ndarray: ...
    @property
    def target(self) -> np.ndarray: ...
    @property
    def mask(self) -> np.ndarray | None: ...


P = TypeVar("P", bound=Pair)


@dataclass(frozen=True)
class Batching:
    """How large batches may become.

    Attributes:
        pairs: most pairs in a batch.
        pixels: most pixels (pairs x H x W) in a batch, so that large images come in small batches; a single pair
            may have more.
        pending_bytes: most bytes of decoded pairs that may wait for their batch to fill, over all shapes.
    """

    pairs: int = 16
    pixels: int = 16 * 256 * 256
    pending_bytes: int = 256 * 2**20

    def pairs_of(self, height: int, width: int) -> int:
        """Most pairs of this size in a batch."""
        return min(self.pairs, max(1, self.pixels // (height * width)))


# Memory that a pass through VGG16 and back takes per pixel of a pair, features of the target included.
_BYTES_PER_PIXEL = 4096
# The size of pair that a batch size is meant for. Larger pairs come in smaller batches, since memory grows with pixels.
PIXELS_PER_PAIR = Batching.pixels // Batching.pairs


def batching_for(gpu_bytes: int) -> Batching:
    """Choose batches that suit a GPU with that much memory; 0 stands for a CPU.

    A GPU gets as many pixels as fit into half of its memory, up to 64 pairs of 256x256, which keep the fastest busy.
    Powers of two keep the batches the same when memory differs slightly. Small pairs come in larger batches.
    """
    if not gpu_bytes:
        return Batching()
    fitting = gpu_bytes // 2 // (_BYTES_PER_PIXEL * PIXELS_PER_PAIR)
    pairs = 1 << min(6, max(0, fitting.bit_length() - 1))
    return Batching(pairs=256, pixels=pairs * PIXELS_PER_PAIR)


def batch_by_shape(pairs: Iterable[P], batching: Batching) -> Iterator[list[P]]:
    """Yield batches of pairs that share height, width and dtype; in each, the pairs keep their order.

    A group is yielded when it is full; if too many bytes are pending, the largest group is; and the rest at the end.
    Which pairs share a batch depends only on the pairs and on `batching`.
    """
    groups: dict[tuple[tuple[int, ...], np.dtype], list[P]] = {}
    pending = 0
    for pair in pairs:
        image = pair.generated
        key = image.shape, image.dtype
        group = groups.setdefault(key, [])
        group.append(pair)
        pending += _bytes([pair])
        if len(group) >= batching.pairs_of(*image.shape[:2]):
            pending -= _bytes(group)
            yield groups.pop(key)
        elif pending > batching.pending_bytes:
            largest = max(groups, key=lambda key: _bytes(groups[key]))
            pending -= _bytes(groups[largest])
            yield groups.pop(largest)
    yield from groups.values()


def _bytes(pairs: list[P]) -> int:
    return sum(pair.generated.nbytes + pair.target.nbytes for pair in pairs)
