"""Compute losses on the networks that ncnn runs, pair by pair. Free of TensorFlow."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cached_property, partial, reduce
from pkgutil import resolve_name

import numpy as np

from transforms.losses.catalog import LOSSES
from transforms.losses.fused.planar import Maps, PlanarLoss, PlanarPair, Sums, added
from transforms.losses.networks.backends.ncnn_model import IMAGE
from transforms.losses.networks.loaded import Networks
from transforms.losses.networks.specs import NETWORKS
from transforms.losses.plan import Plan
from transforms.losses.shared_targets import shared_targets
from transforms.losses.tile_grid import Core, Tile, tiles
from transforms.worker.memory import available_memory, release_memory
from transforms.worker.threads import thread_count

# Bytes that ncnn may take for one image in one piece, and for a tile of a larger one. Each thread computes a pair of
# tiles, and holds a quarter of that besides: the first one's features. VGG16's weights take half a gigabyte as Winograd
# has them. Behind a network's cut, a part of a large picture may take as much as a smaller picture.
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
        compared, others = (
            {layer: maps[network][layer] for layer in layers if layer in maps[network]} for maps in (ours, theirs)
        )
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
            of_part = partial(self._sums_of_part, on_it, network, compared, generated, target)
            of_picture = reduce(_all_added, map(of_part, network_parts(network, compared, *generated.shape[:2])))
            sums.update(of_picture)
        return [self._value(name, sums[name]) for name in losses]

    def _sums_of_part(
        self,
        losses: Sequence[str],
        network: str,
        layers: Sequence[str],
        generated: np.ndarray,
        target: np.ndarray,
        part: Tile,
    ) -> dict[str, Sums]:
        """The sums over the core of a part: up to the cut in tiles, behind it in one piece."""
        row, images = NETWORKS[network], [image[part.rows, part.columns] for image in (generated, target)]
        size = images[0].shape[:2]
        behind = [] if _fits_whole(network, *size) else row.behind_cut(layers)
        before = [layer for layer in layers if layer not in behind]
        computed = list(dict.fromkeys([*before, row.cut])) if behind else before
        # The cut's outputs, put together from the tiles.
        shape = self._networks.on_ncnn[network].shape
        outputs = [np.empty(shape(row.cut, *size), np.float32) for _ in images] if behind else []

        def of_tile(tile: Tile) -> dict[str, Sums]:
            core, features = tile.core_within(part.core), []
            for number, image in enumerate(images):
                maps = self._maps(network, computed, image[tile.rows, tile.columns])
                if behind:
                    tile.fill(outputs[number], maps[row.cut], row.strides[row.cut])
                features.append({network: _inside(core, maps, before, row.strides)})
            release_memory()
            pixels = (core.of(image[np.newaxis, tile.rows, tile.columns])[0] for image in images)
            pair = (*pixels, *features)
            return {name: self._sums(name, *pair) for name in losses}

        def of_output(output: np.ndarray) -> _Planar:
            maps = self._maps(network, behind, output, row.cut)
            return {network: _inside(part.core, maps, behind, row.strides)}

        sums = reduce(_all_added, self._for_tiles.map(of_tile, network_tiles(network, computed, *size)))
        if behind:
            # The tiles have counted the pixels.
            ours, theirs = self._for_outputs.map(of_output, outputs)
            release_memory()
            no_pixels = generated[:0], target[:0]
            sums = _all_added(sums, {name: self._sums(name, *no_pixels, ours, theirs) for name in losses})
        return sums

    def _maps(
        self, network: str, layers: Sequence[str], image: np.ndarray, source: str = IMAGE
    ) -> dict[str, np.ndarray]:
        """The features [C, h, w] of an image, or of the output of the layer `source`."""
        ncnn = self._networks.on_ncnn[network]
        height, width = image.shape[:2] if source == IMAGE else image.shape[1:]
        features = ncnn.features(image, layers, source)
        return {layer: maps.reshape(ncnn.shape(layer, height, width, source)) for layer, maps in features.items()}

    @cached_property
    def _for_tiles(self) -> Executor:
        """As many threads as memory lasts for: a pair of tiles each."""
        return _executor(TILE_BYTES, "tiles")

    @cached_property
    def _for_outputs(self) -> Executor:
        """As many threads as memory lasts for: what lies behind the cut for an image of a part each."""
        return _executor(WHOLE_BYTES, "outputs")


def _executor(each: int, name: str) -> Executor:
    """As many threads as half of the free memory lasts for, when each takes so many bytes."""
    return ThreadPoolExecutor(max(1, int(min(thread_count(), available_memory() / 2 / each))), name)


def _inside(core: Core, maps: dict[str, np.ndarray], layers: Sequence[str], strides: Mapping[str, int]) -> Maps:
    """The features of a core, which `maps` loses one by one, so that few are in memory twice."""
    inside = {}
    for layer in layers:
        part = core.of(maps.pop(layer), strides[layer])
        inside[layer] = np.ascontiguousarray(part).reshape(len(part), -1)
    return inside


def _all_added(one: dict[str, Sums], other: dict[str, Sums]) -> dict[str, Sums]:
    return {name: added(sums, other[name]) for name, sums in one.items()}


def _kernel(name: str) -> PlanarLoss:
    kernel: PlanarLoss = resolve_name(LOSSES[name].planar_kernel)
    return kernel


def _fits_whole(network: str, height: int, width: int) -> bool:
    row = NETWORKS[network]
    return not row.strides or height * width * row.memory_on_ncnn <= WHOLE_BYTES


def network_parts(network: str, layers: Sequence[str], height: int, width: int) -> Iterator[Tile]:
    """The parts of a picture that a network's layers behind its cut compute in one piece each.

    Their size follows from the network and the picture alone, as that of `network_tiles`.
    """
    row = NETWORKS[network]
    if _fits_whole(network, height, width) or not row.behind_cut(layers):
        return iter([_whole(height, width)])
    step = max(row.strides[layer] for layer in layers)
    return tiles(height, width, row.reach, step, WHOLE_BYTES // row.memory_behind_cut)


def network_tiles(network: str, layers: Sequence[str], height: int, width: int) -> Iterator[Tile]:
    """The tiles of a part of a picture for a network's layers up to its cut, or for all if it has none."""
    if _fits_whole(network, height, width):
        return iter([_whole(height, width)])
    row = NETWORKS[network]
    step = max(row.strides[layer] for layer in layers)
    margin = row.reach_to_cut if row.cut else row.reach
    return tiles(height, width, margin, step, TILE_BYTES // row.memory_on_ncnn)


def _whole(height: int, width: int) -> Tile:
    return Tile(slice(0, height), slice(0, width), Core())
