"""How losses reduce maps over the positions of a picture, whether it is there as a whole or comes in tiles.

A loss that reduces over positions by `pair.over` alone can be evaluated in tiles: its row in the catalog says so with
its `reach`. With a mask only the positions in it count; a reduction over none of them is NaN.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from transforms.losses.tile_grid import Core

# Positions that are multiplied at once: long sums of products lose digits in float32.
_PRODUCTS_AT_ONCE = 2**14


def positions_in(mask: tf.Tensor, maps: tf.Tensor, stride: int = 1) -> tf.Tensor:
    """The positions of maps [B, h, w, ...] that lie in a mask, bool [B, H, W]: bool [B, h, w].

    Those do whose middle does. It is a pixel, or both of the two pixels in the middle of an even number.

    Args:
        mask: of the pixels that the maps were computed from.
        maps: from every `stride`-th pixel and, if there are fewer positions than such pixels, from as many around it.
        stride: pixels from a position to the next.
    """
    inside = tf.convert_to_tensor(mask)[:, ::stride, ::stride]
    height, width = tf.shape(maps)[1], tf.shape(maps)[2]
    above, before = tf.shape(inside)[1] - height, tf.shape(inside)[2] - width
    down = inside[:, above // 2 :][:, :height] & inside[:, (above + 1) // 2 :][:, :height]
    return down[:, :, before // 2 :][:, :, :width] & down[:, :, (before + 1) // 2 :][:, :, :width]


def share_in(mask: tf.Tensor, maps: tf.Tensor, stride: int) -> tf.Tensor:
    """The share of the block of pixels that each position of maps [B, h, w, ...] begins in a mask: float32 [B, h, w].

    Args:
        mask: bool [B, H, W].
        maps: position i begins at pixel i * stride.
        stride: pixels from a position to the next.
    """
    pixels = tf.cast(mask, tf.float32)[..., tf.newaxis]
    height, width = tf.shape(mask)[1], tf.shape(mask)[2]
    whole = [[0, 0], [0, -height % stride], [0, -width % stride], [0, 0]]
    # Blocks at the edge count by the pixels that they have.
    counted, there = (
        tf.nn.avg_pool2d(tf.pad(part, whole), stride, stride, "VALID")[..., 0]
        for part in (pixels, tf.ones_like(pixels))
    )
    return (counted / there)[:, : tf.shape(maps)[1], : tf.shape(maps)[2]]


class Reductions:
    """Reductions of maps [B, h, w, ...] over the positions of whole pictures.

    Args:
        mask: the pixels that count, bool [B, H, W]; None: all.
        on_gpu: whether a GPU, or XLA, computes: it takes the products of a batch in one operation.
    """

    def __init__(self, mask: tf.Tensor | None = None, on_gpu: bool = False):
        self._mask, self._on_gpu = mask, on_gpu

    def mean(self, maps: tf.Tensor, stride: int = 1) -> tf.Tensor:
        """The mean over everything but the pair: [B].

        Args:
            maps: position i belongs to pixel i * stride, and depends on pixels within the loss's reach of it.
            stride: pixels from a position to the next.
        """
        if self._mask is None:
            return tf.cast(_mean_of_each(tf.cast(maps, tf.float64)), maps.dtype)
        return _weighted_mean(maps, positions_in(self._mask, maps, stride))

    def mean_of_features(self, maps: tf.Tensor, stride: int) -> tf.Tensor:
        """The mean over everything but the pair: [B]. With a mask, positions weigh as the share of their block in it.

        In the maps' own type, because features in float64 would take too much memory.

        Args:
            maps: position i begins at pixel i * stride.
            stride: pixels from a position to the next; without a mask it does not matter.
        """
        if self._mask is None:
            return _mean_of_each(maps)
        return _weighted_mean(maps, share_in(self._mask, maps, stride))

    def channel_means(self, maps: tf.Tensor, stride: int = 1) -> tf.Tensor:
        """The mean of every channel: float64 [B, C]. It knows no mask."""
        # TensorFlow adds up along the first axes one by one, and float32 would lose digits.
        return tf.reduce_mean(tf.cast(maps, tf.float64), axis=[1, 2])

    def products(self, maps: tf.Tensor) -> tf.Tensor:
        """The mean of the products of every two channels, the Gram matrix over its number of positions: [B, C, C].

        It knows no mask.
        """
        shape = tf.shape(maps)
        pixels = shape[1] * shape[2]
        flat = tf.reshape(maps, [shape[0], pixels, shape[3]])

        def product(factors: tf.Tensor) -> tf.Tensor:
            return tf.matmul(factors, factors, transpose_a=True)

        # Pair by pair on CPUs: see `perceptual` for what becomes of products of more than two axes there.
        products = product(flat) if self._on_gpu else tf.map_fn(product, flat)
        return products / tf.cast(pixels, maps.dtype)

    def moments(self, maps: tf.Tensor, stride: int = 1) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The mean over the positions and the sum of squared differences from it, each float64 [B, ...]; their number.

        With a mask maps are [B, h, w], and there is a number for each pair.
        """
        if self._mask is not None:
            inside = positions_in(self._mask, maps, stride)
            average, weights = _weighted_mean(maps, inside), tf.cast(inside, maps.dtype)
            squares = weights * tf.math.squared_difference(maps, average[:, tf.newaxis, tf.newaxis])
            return tf.cast(average, tf.float64), _sum_over_positions(squares), _sum_over_positions(weights)
        height, width = tf.shape(maps)[1], tf.shape(maps)[2]
        pixels = tf.cast(height * width, tf.float64)
        # Around the value in the middle flat maps are 0, whose sum has no error.
        middle = tf.stop_gradient(maps[:, height // 2, width // 2])
        off = maps - middle[:, tf.newaxis, tf.newaxis]
        mean = _sum_over_positions(off) / pixels
        squares = tf.math.squared_difference(off, tf.cast(mean, maps.dtype)[:, tf.newaxis, tf.newaxis])
        return tf.cast(middle, tf.float64) + mean, _sum_over_positions(squares), pixels

    def quantile(self, maps: tf.Tensor, share: float) -> tf.Tensor:
        """The value of maps [B, h, w] that this share of the positions does not exceed, interpolated: [B]."""
        if self._mask is not None:
            return self._masked_quantile(maps, share)
        ordered = tf.sort(tf.reshape(maps, [tf.shape(maps)[0], -1]), axis=1)
        place = share * tf.cast(tf.shape(ordered)[1] - 1, tf.float64)
        below = tf.floor(place)
        low, high = (tf.gather(ordered, tf.cast(index, tf.int32), axis=1) for index in (below, tf.math.ceil(place)))
        return low + (high - low) * (place - below)

    def _masked_quantile(self, maps: tf.Tensor, share: float) -> tf.Tensor:
        inside = positions_in(self._mask, maps)
        pairs = tf.shape(maps)[0]
        ordered = tf.sort(tf.reshape(tf.where(inside, maps, maps.dtype.max), [pairs, -1]), axis=1)
        count = tf.reduce_sum(tf.cast(inside, tf.float64), axis=[1, 2])
        place = share * tf.maximum(count - 1, 0)
        below = tf.floor(place)
        low, high = (
            tf.gather(ordered, tf.cast(index, tf.int32), batch_dims=1) for index in (below, tf.math.ceil(place))
        )
        return tf.where(count > 0, low + (high - low) * (place - below), np.nan)


OVER_WHOLE = Reductions()


def _sum_over_positions(maps: tf.Tensor) -> tf.Tensor:
    """The sum over the positions, float64 [B, ...].

    Row by row in the maps' own type: TensorFlow adds up along these axes one by one, so that long sums lose digits, and
    features in float64 would take too much memory.
    """
    return tf.reduce_sum(tf.cast(tf.reduce_sum(maps, axis=2), tf.float64), axis=1)


def _weighted_mean(maps: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """The mean of maps [B, h, w, ...] by weights [B, h, w]: [B]."""
    by_position, weights = tf.cast(maps, tf.float64), tf.cast(weights, tf.float64)
    if len(maps.shape) == 4:
        by_position = tf.reduce_mean(by_position, axis=3)
    total, count = (tf.reduce_sum(part, axis=[1, 2]) for part in (by_position * weights, weights))
    return tf.cast(total / count, maps.dtype)


def _mean_of_each(maps: tf.Tensor) -> tf.Tensor:
    """The mean over all axes but the first. One after the other, their sums would depend on the batch."""
    return tf.reduce_mean(maps, axis=list(range(1, len(maps.shape))))


class TiledReductions(Reductions):
    """Reductions over a picture that comes in tiles, in float64: of all tiles so far.

    A loss is evaluated on one tile after the other; its value on the last one is that of the picture. One object
    serves one loss and one batch of pictures of the same size. Eager execution only.
    """

    def __init__(self) -> None:
        super().__init__()
        # In the order in which the loss asks for its reductions.
        self._shares: list[list[Any]] = []
        self._turn = 0
        self._core = Core()

    def enter(self, core: Core, mask: tf.Tensor | None = None) -> None:
        """From now on maps are those of another tile, of which the core counts; with a mask of the tile, what is in it.

        Tiles have a mask either all of them or none.
        """
        self._core = core
        self._mask = mask
        self._turn = 0

    def mean(self, maps: tf.Tensor, stride: int = 1) -> tf.Tensor:
        weights = None if self._mask is None else positions_in(self._mask, maps, stride)
        return self._mean(maps, stride, weights)

    def mean_of_features(self, maps: tf.Tensor, stride: int) -> tf.Tensor:
        # Features are those of the core alone.
        return self._mean(maps, 1, None if self._mask is None else share_in(self._mask, maps, stride))

    def _mean(self, maps: tf.Tensor, stride: int, weights: tf.Tensor | None) -> tf.Tensor:
        def share(inside: tf.Tensor) -> tuple[Any, Any]:
            count: Any = float(np.prod(inside.shape[1:3]))
            if weights is not None:
                counted = tf.cast(self._core.of(weights, stride), inside.dtype)
                inside *= counted[..., tf.newaxis] if len(inside.shape) == 4 else counted
                count = _float64(counted).sum(axis=(1, 2))
            # By rows in the maps' own type, which keeps the digits of short sums.
            rows = tf.reduce_sum(inside, axis=list(range(2, len(inside.shape))))
            return _float64(rows).sum(axis=1), count * float(np.prod(inside.shape[3:]))

        total, count = self._total(maps, stride, share)
        return tf.constant(_quotient(total, count))

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
        weights = None if self._mask is None else positions_in(self._mask, maps, stride)

        def share(inside: tf.Tensor) -> tuple[Any, Any, Any]:
            values, count = _float64(inside), float(np.prod(inside.shape[1:3]))
            if weights is None:
                return values.sum(axis=(1, 2)), np.square(values).sum(axis=(1, 2)), count
            counted = _float64(self._core.of(weights, stride))
            parts = (values * counted, np.square(values) * counted, counted)
            total, squares, number = (part.sum(axis=(1, 2)) for part in parts)
            return total, squares, number

        total, squares, count = self._total(maps, stride, share)
        mean = _quotient(total, count)
        centred = np.maximum(squares - total * mean, 0)
        return tf.constant(mean), tf.constant(centred), tf.constant(count, tf.float64)

    def quantile(self, maps: tf.Tensor, share: float) -> tf.Tensor:
        inside = self._core.of(maps)
        if self._mask is not None:
            inside = tf.where(self._core.of(positions_in(self._mask, maps)), inside, np.nan)
        parts = self._shared(list)
        parts.append(tf.reshape(inside, [inside.shape[0], -1]).numpy().astype(np.float32))
        if (self._core.bottom, self._core.right) != (None, None):
            # The last tile is still to come, and sorting takes longer than everything else.
            return tf.zeros(inside.shape[0], tf.float64)
        if self._mask is None:
            return tf.constant(np.quantile(np.concatenate(parts, axis=1), share, axis=1).astype(np.float64))
        counted = (row[~np.isnan(row)] for row in np.concatenate(parts, axis=1))
        return tf.constant([np.quantile(row, share) if row.size else np.nan for row in counted], tf.float64)

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


def _quotient(total: np.ndarray, count: Any) -> np.ndarray:
    """The total over the count; before the first position 0, or NaN if the counts are those of masks."""
    if np.ndim(count) == 0:
        return total / max(count, 1)
    with np.errstate(invalid="ignore"):
        return total / count


def _float64(tensor: tf.Tensor) -> np.ndarray:
    return tf.cast(tensor, tf.float64).numpy()
