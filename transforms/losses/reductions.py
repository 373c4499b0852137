"""How losses reduce maps over the positions of a picture, whether it is there as a whole or comes in tiles.

A loss that reduces over positions by `pair.over` alone can be evaluated in tiles: its row in the catalog says so with
its `reach`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

# Positions that are multiplied at once: long sums of products lose digits in float32.
_PRODUCTS_AT_ONCE = 2**14


class Core(NamedTuple):
    """The pixels of a tile without its margin, counted from the tile's corner; None: up to the tile's edge."""

    top: int = 0
    bottom: int | None = None
    left: int = 0
    right: int | None = None

    def of(self, maps: Any, stride: int = 1) -> Any:
        """The positions of a tile's maps [B, h, w, ...] that belong to the core; `stride` pixels lie between two."""
        rows, columns = (
            slice(start // stride, None if stop is None else stop // stride)
            for start, stop in ((self.top, self.bottom), (self.left, self.right))
        )
        return maps[:, rows, columns]


class Reductions:
    """Reductions of maps [B, h, w, ...] over the positions of whole pictures."""

    def mean(self, maps: tf.Tensor, stride: int = 1) -> tf.Tensor:
        """The mean over everything but the pair: [B].

        Args:
            maps: position i belongs to pixel i * stride, and depends on pixels within the loss's reach of it.
            stride: pixels from a position to the next.
        """
        return tf.reduce_mean(maps, axis=list(range(1, len(maps.shape))))

    def channel_means(self, maps: tf.Tensor, stride: int = 1) -> tf.Tensor:
        """The mean of every channel: [B, C]."""
        return tf.reduce_mean(maps, axis=[1, 2])

    def products(self, maps: tf.Tensor) -> tf.Tensor:
        """The mean of the products of every two channels, the Gram matrix over its number of positions: [B, C, C]."""
        shape = tf.shape(maps)
        pixels = shape[1] * shape[2]
        # Pair by pair: see `perceptual` for what becomes of products of more than two axes.
        flat = tf.reshape(maps, [shape[0], pixels, shape[3]])
        return tf.map_fn(lambda pair: tf.matmul(pair, pair, transpose_a=True), flat) / tf.cast(pixels, maps.dtype)

    def moments(self, maps: tf.Tensor, stride: int = 1) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The mean over the positions and the sum of squared differences from it, each [B, ...], and their number."""
        mean = tf.reduce_mean(maps, axis=[1, 2], keepdims=True)
        squares = tf.reduce_sum(tf.math.squared_difference(maps, mean), axis=[1, 2])
        shape = tf.shape(maps)
        return mean[:, 0, 0], squares, tf.cast(shape[1] * shape[2], maps.dtype)

    def quantile(self, maps: tf.Tensor, share: float) -> tf.Tensor:
        """The value of maps [B, h, w] that this share of the positions does not exceed, interpolated: [B]."""
        ordered = tf.sort(tf.reshape(maps, [tf.shape(maps)[0], -1]), axis=1)
        place = share * tf.cast(tf.shape(ordered)[1] - 1, tf.float64)
        below = tf.floor(place)
        low, high = (tf.gather(ordered, tf.cast(index, tf.int32), axis=1) for index in (below, tf.math.ceil(place)))
        return low + (high - low) * (place - below)


OVER_WHOLE = Reductions()


class TiledReductions(Reductions):
    """Reductions over a picture that comes in tiles, in float64: of all tiles so far.

    A loss is evaluated on one tile after the other; its value on the last one is that of the picture. One object
    serves one loss and one batch of pictures of the same size. Eager execution only.
    """

    def __init__(self) -> None:
        # In the order in which the loss asks for its reductions.
        self._shares: list[list[Any]] = []
        self._turn = 0
        self._core = Core()

    def enter(self, core: Core) -> None:
        """From now on maps are those of another tile, of which the core counts."""
        self._core = core
        self._turn = 0

    def mean(self, maps: tf.Tensor, stride: int = 1) -> tf.Tensor:
        def share(inside: tf.Tensor) -> tuple[Any, float]:
            # By rows in the maps' own type, which keeps the digits of short sums.
            rows = tf.reduce_sum(inside, axis=list(range(2, len(inside.shape))))
            return _float64(rows).sum(axis=1), float(np.prod(inside.shape[1:]))

        total, count = self._total(maps, stride, share)
        return tf.constant(total / max(count, 1))

    def channel_means(self, maps: tf.Tensor, stride: int = 1) -> tf.Tensor:
        def share(inside: tf.Tensor) -> tuple[Any, float]:
            return _float64(tf.reduce_sum(inside, axis=2)).sum(axis=1), float(np.prod(inside.shape[1:3]))

        total, count = self._total(maps, stride, share)
        return tf.constant(total / max(count, 1))

    def products(self, maps: tf.Tensor) -> tf.Tensor:
        def share(inside: tf.Tensor) -> tuple[Any, float]:
            flat = tf.reshape(inside, [inside.shape[0], -1, inside.shape[3]])
            total = np.zeros((inside.shape[0], inside.shape[3], inside.shape[3]))
            for pair, positions in enumerate(flat):
                for start in range(0, len(positions), _PRODUCTS_AT_ONCE):
                    part = positions[start : start + _PRODUCTS_AT_ONCE]
                    total[pair] += _float64(tf.matmul(part, part, transpose_a=True))
            return total, float(flat.shape[1])

        total, count = self._total(maps, 1, share)
        return tf.constant(total / max(count, 1))

    def moments(self, maps: tf.Tensor, stride: int = 1) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        def share(inside: tf.Tensor) -> tuple[Any, Any, float]:
            values = _float64(inside)
            return values.sum(axis=(1, 2)), np.square(values).sum(axis=(1, 2)), float(np.prod(inside.shape[1:3]))

        total, squares, count = self._total(maps, stride, share)
        mean = total / max(count, 1)
        centred = np.maximum(squares - total * mean, 0)
        return tf.constant(mean), tf.constant(centred), tf.constant(count, tf.float64)

    def quantile(self, maps: tf.Tensor, share: float) -> tf.Tensor:
        inside = self._core.of(maps)
        parts = self._shared(list)
        parts.append(tf.reshape(inside, [inside.shape[0], -1]).numpy().astype(np.float32))
        if (self._core.bottom, self._core.right) != (None, None):
            # The last tile is still to come, and sorting takes longer than everything else.
            return tf.zeros(inside.shape[0], tf.float64)
        return tf.constant(np.quantile(np.concatenate(parts, axis=1), share, axis=1).astype(np.float64))

    def _total(self, maps: tf.Tensor, stride: int, share: Callable[[tf.Tensor], tuple[Any, ...]]) -> tuple[Any, ...]:
        """The sums of the shares of all tiles so far."""
        found = share(self._core.of(maps, stride))
        totals = self._shared(lambda: [0.0] * len(found))
        totals[:] = [total + part for total, part in zip(totals, found, strict=True)]
        return tuple(totals)

    def _shared(self, empty: Callable[[], list[Any]]) -> list[Any]:
        """The shares that the tiles so far gave to the reduction whose turn it is."""
        if self._turn == len(self._shares):
            self._shares.append(empty())
        self._turn += 1
        return self._shares[self._turn - 1]


def _float64(tensor: tf.Tensor) -> np.ndarray:
    return tf.cast(tensor, tf.float64).numpy()
