"""Compute losses on the networks that ncnn runs, pair by pair. Free of TensorFlow."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cached_property, partial, reduce
from pkgutil import resolve_name

import numpy as np

from transforms.losses.catalog import LOSSES
from transforms.losses.fused.planar import Maps, PlanarLoss, PlanarPair, Sums, added
from transforms.losses.networks.loaded import Networks
from transforms.losses.networks.specs import NETWORKS
from transforms.losses.plan import Plan
from transforms.losses.shared_targets import shared_targets
from transforms.losses.tile_grid import Core, Tile, tiles
from transforms.worker.memory import available_memory, release_memory
from transforms.worker.threads import thread_count

# Bytes that ncnn may take for one image in one piece, and for a tile of a larger one. Each thread computes a pair of
# tiles, and holds a quarter of that besides: the first one's features. VGG16's weights take half a gigabyte as Winograd
# has them.
WHOLE_BYTES = 9 * 2**28
TILE_BYTES = 3 * 2**28

# The features of an image by network and layer.
_Planar = Mapping[str, Maps]
# The layers that the losses compare, by network.
_Layers = Mapping[str, Sequence[str]]


class PlanarEvaluator:
    """Computes losses on networks that ncnn computes. A pair's bits depend on the pair alone.

    Args:
        plan: whose losses to compute.
        networks: of this plan.
        executor: has as many threads as may compute at once.
    """

    def __init__(self, plan: Plan, networks: Networks, executor: Executor):
        self._plan = plan
        self._networks = networks
        self._executor = executor

    def __call__(self, losses: Sequence[str], generated: np.ndarray, target: np.ndarray) -> Iterator[Sequence[float]]:
        """Begin to compute the losses, and yield their values for each pair.

        Args:
            losses: names of losses on networks that ncnn computes.
            generated: [B, H, W, 3] RGB: uint8 or uint16 of full range, or float32 in [0, 1].
            target: the same shape and type.
        """
        needed = {name: self._plan.layers(name, losses) for name in self._networks.on_ncnn}
        layers = {name: compared for name, compared in needed.items() if compared}
        if not all(_fits_whole(name, *generated.shape[1:3]) for name in layers):
            return map(partial(self._in_tiles, losses, layers), generated, target)
        features, values = partial(self._features, layers), partial(self._values, losses)
        # Candidates of one target share its pass through the network.
        if shared := shared_targets(target):
            of_targets = list(self._executor.map(features, target[shared.first]))
            shared_features = (of_targets[row] for row in shared.rows)
            return self._executor.map(
                lambda g, t, maps: values(g, t, features(g), maps), generated, target, shared_features
            )
        if len(generated) < thread_count():
            # A thread for each image.
            ours, theirs = (self._executor.map(features, images) for images in (generated, target))
            return map(values, generated, target, ours, theirs)
        return self._executor.map(lambda g, t: values(g, t, features(g), features(t)), generated, target)

    def _features(self, layers: _Layers, image: np.ndarray) -> _Planar:
        return {name: self._networks.on_ncnn[name].features(image, compared) for name, compared in layers.items()}

    def _values(
        self, losses: Sequence[str], generated: np.ndarray, target: np.ndarray, ours: _Planar, theirs: _Planar
    ) -> list[float]:
        return [self._value(name, self._sums(name, generated, target, ours, theirs)) for name in losses]

    def _sums(self, name: str, generated: np.ndarray, target: np.ndarray, ours: _Planar, theirs: _Planar) -> Sums:
        network, layers = LOSSES[name].network, self._plan.compared_layers(name)
        compared, others = ({layer: maps[network][layer] for layer in layers} for maps in (ours, theirs))
        return _kernel(name).sums(PlanarPair(generated, target, compared, others, self._networks.weights[network]))

    def _value(self, name: str, sums: Sums) -> float:
        return _kernel(name).value(sums, self._networks.weights[LOSSES[name].network])

    def _in_tiles(
        self, losses: Sequence[str], layers: _Layers, generated: np.ndarray, target: np.ndarray
    ) -> list[float]:
        """The values of the losses for a large pair [H, W, 3]."""
        sums: dict[str, Sums] = {}
        for network, compared in layers.items():
            on_it = [name for name in losses if LOSSES[name].network == network]
            of_tile = partial(self._sums_of_tile, on_it, network, compared, generated, target)
            grid = network_tiles(network, compared, *generated.shape[:2])
            of_picture = reduce(_all_added, self._of_large.map(of_tile, grid))
            sums.update(of_picture)
        return [self._value(name, sums[name]) for name in losses]

    def _sums_of_tile(
        self,
        losses: Sequence[str],
        network: str,
        layers: Sequence[str],
        generated: np.ndarray,
        target: np.ndarray,
        tile: Tile,
    ) -> dict[str, Sums]:
        parts = [image[tile.rows, tile.columns] for image in (generated, target)]
        ours, theirs = ({network: self._core_features(network, layers, part, tile.core)} for part in parts)
        release_memory()
        pixels = (tile.core.of(part[np.newaxis])[0] for part in parts)
        pair = (*pixels, ours, theirs)
        return {name: self._sums(name, *pair) for name in losses}

    def _core_features(self, network: str, layers: Sequence[str], image: np.ndarray, core: Core) -> Maps:
        ncnn, strides = self._networks.on_ncnn[network], NETWORKS[network].strides
        features = ncnn.features(image, layers)
        inside = {}
        for layer in layers:
            maps = features.pop(layer).reshape(ncnn.shape(layer, *image.shape[:2]))
            part = maps if core == Core() else np.ascontiguousarray(core.of(maps, strides[layer]))
            inside[layer] = part.reshape(len(part), -1)
        return inside

    @cached_property
    def _of_large(self) -> Executor:
        """As many threads as memory lasts for: a pair of tiles each."""
        lasting = available_memory() / 2 / TILE_BYTES
        return ThreadPoolExecutor(max(1, int(min(thread_count(), lasting))), "tiles")


def _all_added(one: dict[str, Sums], other: dict[str, Sums]) -> dict[str, Sums]:
    return {name: added(sums, other[name]) for name, sums in one.items()}


def _kernel(name: str) -> PlanarLoss:
    kernel: PlanarLoss = resolve_name(LOSSES[name].planar_kernel)
    return kernel


def _fits_whole(network: str, height: int, width: int) -> bool:
    row = NETWORKS[network]
    return not row.strides or height * width * row.memory_on_ncnn <= WHOLE_BYTES


def network_tiles(network: str, layers: Sequence[str], height: int, width: int) -> Iterator[Tile]:
    """The tiles of a picture for this network; their size follows from the network and the picture alone."""
    if _fits_whole(network, height, width):
        return iter([Tile(slice(0, height), slice(0, width), Core())])
    row = NETWORKS[network]
    step = max(row.strides[layer] for layer in layers)
    return tiles(height, width, row.reach, step, TILE_BYTES // row.memory_on_ncnn)
