"""Evaluate losses on large pictures tile by tile, so that memory does not grow with the picture.

A tile has a margin as wide as the network and the loss can see; inside of it, its features are the picture's own. Which
losses can be evaluated like this is said by their rows' `reach`, and their networks' `strides`.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np
import tensorflow as tf

from transforms.losses.catalog import LOSSES
from transforms.losses.networks.loaded import NetworkFeatures, Networks
from transforms.losses.networks.specs import NETWORKS
from transforms.losses.pair import as_images, family_values
from transforms.losses.plan import Plan
from transforms.losses.reductions import TiledReductions
from transforms.losses.tile_grid import Core, tiles, up

# Every stride of maps in the losses on pixels divides it.
_PIXEL_STEP = 16
# Pixels of a tile, margin included: with these VGG16 keeps within a gigabyte. Losses on pixels have narrow margins, so
# that small tiles cost little.
NETWORK_TILE_PIXELS = 832**2
TILE_PIXELS = 448**2


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
            families = [(family, TiledReductions()) for family in self._plan.families(names)]
            pixels = NETWORK_TILE_PIXELS if network else TILE_PIXELS
            for tile in tiles(generated.shape[1], generated.shape[2], margin, step, pixels):
                parts = [images[:, tile.rows, tile.columns] for images in (generated, target)]
                # One after the other: the network takes half the memory then.
                features = partial(self._features, network, tuple(names), tile.core)
                ours, theirs = map(features, parts) if network else ({}, {})
                mask_part = None if mask is None else tf.constant(mask[:, tile.rows, tile.columns])
                if network and mask_part is not None:
                    mask_part = tile.core.of(mask_part)
                # With the features come the pixels of the core alone.
                generated_part, target_part = (as_images(tile.core.of(part) if network else part) for part in parts)
                for family, over in families:
                    over.enter(Core() if network else tile.core, mask_part)
                    found = family_values(self._networks, family, generated_part, target_part, ours, theirs, over)
                    values |= {name: value.numpy().astype(np.float32) for name, value in found.items()}
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
                grids["", up(reach, _PIXEL_STEP), _PIXEL_STEP].append(name)
        return grids

    def _features(self, network: str, losses: tuple[str, ...], core: Core, images: np.ndarray) -> NetworkFeatures:
        maps = self._graph(losses)(as_images(images))[network]
        strides = NETWORKS[network].strides
        return {network: {layer: core.of(maps[layer], strides[layer]) for layer in maps}}

    def _build_graph(self, losses: tuple[str, ...]) -> Callable[[tf.Tensor], NetworkFeatures]:
        return tf.function(
            partial(self._networks.features, losses=losses),
            input_signature=[tf.TensorSpec([None, None, None, 3])],
            autograph=False,
        )
