"""How a large picture goes through the stages of a network, so that little of it is in memory. Free of TensorFlow.

A stage computes a band of rows as soon as the stage before it has computed the rows that the band sees. So every output
is computed once, but for the margins of bands and tiles, and only rows that a later band sees are kept.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from transforms.losses.networks.backends.ncnn_model import IMAGE
from transforms.losses.networks.specs import Network
from transforms.losses.tile_grid import Tile, up

# Bytes of the rows that stages keep for each other, of both images and without the margins; and the fewest rows of a
# band, in pixels, because the margins of flat bands take the time.
BAND_BYTES = 2**28
FEWEST_ROWS = 128


class StageWork(NamedTuple):
    """A stage of a network, and what is asked of it.

    Attributes:
        source: the layer whose output it gets, or `data`.
        layers: those whose features are compared.
        cut: the layer whose output the next stage gets; empty: there is none.
        margin: pixels that a band or a tile sees around it.
        step: bands and tiles begin at multiples of it, in pixels.
        memory: bytes that ncnn takes at most, per pixel of an image.
    """

    source: str
    layers: tuple[str, ...]
    cut: str
    margin: int
    step: int
    memory: int

    @property
    def computed(self) -> tuple[str, ...]:
        """The layers to compute."""
        return tuple(dict.fromkeys((*self.layers, *([self.cut] if self.cut else []))))


class Band(NamedTuple):
    """Rows for a stage to compute, in pixels of the picture.

    Attributes:
        stage: its number.
        top: the first row.
        bottom: the row behind the last.
        kept: the first row of the stage's output that the next stage still needs.
    """

    stage: int
    top: int
    bottom: int
    kept: int


def stages_for(network: Network, layers: Collection[str]) -> list[StageWork]:
    """The stages of a network up to the deepest of the layers."""
    found, source, deeper = [], IMAGE, set(layers)
    for stage in network.stages:
        # The cut is a pooling: none of the layers before it has its stride.
        stride = network.strides[stage.cut] if stage.cut else math.inf
        here = tuple(sorted(layer for layer in deeper if network.strides[layer] < stride or layer == stage.cut))
        deeper -= {*here}
        cut = stage.cut if deeper else ""
        work = StageWork(source, here, cut, 0, 0, stage.memory)
        step = max(network.strides[layer] for layer in work.computed)
        found.append(work._replace(margin=up(stage.reach, step), step=step))
        if not cut:
            break
        source = cut
    return found


def bands(height: int, stages: Sequence[StageWork], rows: int) -> Iterator[Band]:
    """Yield the bands of a picture in an order in which each one's input has been computed.

    Args:
        height: of the picture, in pixels.
        stages: shallowest first.
        rows: of the first stage's bands, a multiple of every stage's step.
    """
    done = [0] * len(stages)
    while done[-1] < height:
        for number, stage in enumerate(stages):
            there = done[number - 1] if number else min(height, done[0] + rows)
            # Bands of the first stage see the picture, all of which is there.
            whole = number == 0 or there == height
            bottom = there if whole else (there - stage.margin) // stage.step * stage.step
            if bottom > done[number]:
                kept = max(0, done[number + 1] - stages[number + 1].margin) if stage.cut else bottom
                yield Band(number, done[number], bottom, kept)
                done[number] = bottom


class Window:
    """The rows of a layer's output that a later stage still needs.

    Args:
        shape: of the output for the picture: channels, rows, columns.
        stride: pixels from a position to the next.
    """

    def __init__(self, shape: tuple[int, int, int], stride: int):
        channels, self._rows, self._columns = shape
        self._stride, self._first = stride, 0
        self._maps = np.empty((channels, 0, self._columns), np.float32)

    @property
    def bytes_per_row(self) -> float:
        """Bytes for every row of pixels."""
        return self._maps.itemsize * len(self._maps) * self._columns / self._stride

    def move(self, top: int, bottom: int) -> None:
        """Forget what lies above a row of pixels, and make room for what lies above another."""
        first, end = top // self._stride, self._end(bottom, self._rows)
        kept = self._maps[:, first - self._first :]
        self._maps = np.empty((len(kept), end - first, self._columns), np.float32)
        self._maps[:, : kept.shape[1]] = kept
        self._first = first

    def fill(self, tile: Tile, maps: np.ndarray) -> None:
        """Copy the core of a tile's maps [C, h, w] to its place."""
        core = tile.core.of(maps, self._stride)
        top = (tile.rows.start + tile.core.top) // self._stride - self._first
        left = (tile.columns.start + tile.core.left) // self._stride
        self._maps[:, top : top + core.shape[1], left : left + core.shape[2]] = core

    def seen_by(self, tile: Tile) -> np.ndarray:
        """The maps [C, h, w] of a tile, its margin included."""
        first, end = tile.rows.start // self._stride - self._first, self._end(tile.rows.stop, self._rows) - self._first
        left, right = tile.columns.start // self._stride, self._end(tile.columns.stop, self._columns)
        return np.ascontiguousarray(self._maps[:, first:end, left:right])

    def _end(self, pixel: int, positions: int) -> int:
        """The position behind the last one before a pixel, which is the picture's edge or begins a position."""
        return min(positions, -(-pixel // self._stride))


def band_rows(height: int, stages: Sequence[StageWork], windows: Iterable[Window]) -> int:
    """The rows of the first stage's bands, in pixels. They follow from the network and the picture's size alone."""
    step = max(stage.step for stage in stages)
    kept = sum(window.bytes_per_row for window in windows)
    return max(FEWEST_ROWS, int(BAND_BYTES / kept) // step * step) if kept else up(height, step)
