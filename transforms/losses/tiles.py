"""Evaluate losses on large pictures tile by tile, so that memory does not grow with the picture.

A tile has a margin as wide as the network and the loss can see; inside of it, its features are the picture's own. Which
losses can be evaluated like this is said by their rows' `reach`, and their networks' `strides`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from transforms.losses.catalog import LOSSES
from transforms.losses.networks.loaded import NetworkFeatures, Networks
from transforms.losses.networks.specs import NETWORKS
from transforms.losses.pair import as_images, loss_value
from transforms.losses.plan import Plan
from transforms.losses.reductions import Core, TiledReductions
from transforms.worker.memory import release_memory

# Every stride of maps in the losses on pixels divides it.
_PIXEL_STEP = 16
# Pixels of a tile without its margin: as many as those of a square of this side.
SIDE = 384
# ncnn takes more memory per pixel than TensorFlow.
SIDE_ON_NCNN = 288


class Tile(NamedTuple):
    """A part of a picture.

    Attributes:
        rows: of the picture, margin included.
        columns: as `rows`.
        core: where the tile without its margin lies in it.
    """

    rows: slice
    columns: slice
    core: Core


def tiles(height: int, width: int, margin: int, step: int, side: int) -> Iterator[Tile]:
    """Yield tiles whose cores cover a picture, each pixel once. Where a tile has no margin, the picture ends.

    Args:
        height: of the picture, in pixels.
        width: of the picture.
        margin: least number of pixels around a core.
        step: tiles and cores begin at multiples of it, so that strides of a network meet the same pixels.
        side: a core has about as many pixels as a square of this side.
    """
    margin = _up(margin, step)
    # A narrow picture has longer tiles.
    across = _up(max(side, side**2 // height), step)
    down = _up(max(side, side**2 // width), step)
    for top, bottom, above, below in _spans(height, down, margin):
        for left, right, before, behind in _spans(width, across, margin):
            core = Core(
                top - above,
                None if bottom == height else bottom - above,
                left - before,
                None if right == width else right - before,
            )
            yield Tile(slice(above, below), slice(before, behind), core)


def _spans(length: int, size: int, margin: int) -> Iterator[tuple[int, int, int, int]]:
    """Start and stop of each core, and of its tile."""
    for start in range(0, length, size):
        stop = min(start + size, length)
        yield start, stop, max(0, start - margin), min(length, stop + margin)


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


class TiledEvaluator:
    """Computes losses as TensorFlow defines them, in float64 where they add up over tiles.

    Args:
        plan: whose losses to compute.
        networks: of this plan.
    """

    def __init__(self, plan: Plan, networks: Networks):
        self._plan = plan
        self._networks = networks
        self._graph = cache(self._build_graph)

    def __call__(
        self, losses: Sequence[str], generated: np.ndarray, target: np.ndarray, mask: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """The losses of each pair, float32 [B].

        Args:
            losses: names of losses that can be evaluated in tiles.
            generated: [B, H, W, 3] RGB: uint8 or uint16 of full range, or float32 in [0, 1].
            target: the same shape and type.
            mask: the pixels that count, bool [B, H, W]; None: all.
        """
        values: dict[str, np.ndarray] = {}
        for (network, margin, step), names in self._grids(losses).items():
            reductions = {name: TiledReductions() for name in names}
            side = SIDE_ON_NCNN if network in self._networks.on_ncnn else SIDE
            for tile in tiles(generated.shape[1], generated.shape[2], margin, step, side):
                parts = [images[:, tile.rows, tile.columns] for images in (generated, target)]
                ours, theirs = self._features(network, names, parts, tile.core) if network else ({}, {})
                mask_part = None if mask is None else tf.constant(mask[:, tile.rows, tile.columns])
                if network and mask_part is not None:
                    mask_part = tile.core.of(mask_part)
                # With the features come the pixels of the core alone.
                generated_part, target_part = (as_images(tile.core.of(part) if network else part) for part in parts)
                for name in names:
                    reductions[name].enter(Core() if network else tile.core, mask_part)
                    value = loss_value(
                        self._networks, name, generated_part, target_part, ours, theirs, reductions[name]
                    )
                    values[name] = value.numpy().astype(np.float32)
        return values

    def _grids(self, losses: Sequence[str]) -> dict[tuple[str, int, int], list[str]]:
        """The losses by their network, if any, and by margin and step of the tiles they need."""
        grids: defaultdict[tuple[str, int, int], list[str]] = defaultdict(list)
        for name in losses:
            network = LOSSES[name].network
            if network:
                layers = self._plan.layers(network, losses)
                step = max(NETWORKS[network].strides[layer] for layer in layers)
                grids[network, NETWORKS[network].reach, step].append(name)
            else:
                reach = LOSSES[name].reach
                assert reach is not None, "the plan leaves out what cannot be evaluated in tiles"
                grids["", _up(reach, _PIXEL_STEP), _PIXEL_STEP].append(name)
        return grids

    def _features(
        self, network: str, losses: Sequence[str], parts: Sequence[np.ndarray], core: Core
    ) -> Iterator[NetworkFeatures]:
        """The features of a tile's core: of the generated images, and of the targets."""
        # One after the other: the network takes half the memory then.
        if network not in self._networks.on_ncnn:
            return map(partial(self._by_tensorflow, network, tuple(losses), core), parts)
        layers = self._plan.layers(network, losses)
        return map(partial(self._by_ncnn, network, layers, core), parts)

    def _by_tensorflow(self, network: str, losses: tuple[str, ...], core: Core, images: np.ndarray) -> NetworkFeatures:
        maps = self._graph(losses)(as_images(images))[network]
        strides = NETWORKS[network].strides
        return {network: {layer: core.of(maps[layer], strides[layer]) for layer in maps}}

    def _by_ncnn(self, network: str, layers: Sequence[str], core: Core, images: np.ndarray) -> NetworkFeatures:
        ncnn, strides = self._networks.on_ncnn[network], NETWORKS[network].strides
        height, width = images.shape[1:3]
        rows: dict[str, list[np.ndarray]] = {layer: [] for layer in layers}
        for image in images:
            for layer, flat in ncnn.features(image, layers).items():
                maps = flat.reshape(ncnn.shape(layer, height, width)).transpose(1, 2, 0)
                rows[layer].append(core.of(maps[np.newaxis], strides[layer]))
        features = {network: {layer: tf.constant(np.concatenate(found)) for layer, found in rows.items()}}
        del maps, flat, rows
        release_memory()
        return features

    def _build_graph(self, losses: tuple[str, ...]) -> Callable[[tf.Tensor], NetworkFeatures]:
        return tf.function(
            partial(self._networks.features, losses=losses),
            input_signature=[tf.TensorSpec([None, None, None, 3])],
            autograph=False,
        )
