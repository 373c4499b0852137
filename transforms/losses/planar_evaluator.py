"""Compute losses on the networks that ncnn runs, pair by pair. Free of TensorFlow."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cached_property, partial, reduce
from itertools import chain
from pkgutil import resolve_name

import numpy as np

from transforms.losses.bands import Band, StageWork, Window, band_rows, bands, stages_for
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

# Bytes that ncnn may take for one image in one piece, and for a tile of a larger one.
WHOLE_BYTES = 2**30
TILE_BYTES = 3 * 2**26

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
        sums = self._sums(losses, generated, target, ours, theirs)
        return [self._value(name, sums) for name in losses]

    def _sums(
        self, losses: Sequence[str], generated: np.ndarray, target: np.ndarray, ours: _Planar, theirs: _Planar
    ) -> dict[str, Sums]:
        """The sums of every family of losses, by its whole."""
        sums = {}
        for family in self._plan.families(losses):
            network = LOSSES[family.whole].network
            compared, others = ({k: of[network][k] for k in family.layers if k in of[network]} for of in (ours, theirs))
            pair = PlanarPair(generated, target, compared, others, self._networks.weights[network])
            sums[family.whole] = _kernel(family.whole).sums(pair)
        return sums

    def _value(self, name: str, sums: Mapping[str, Sums]) -> float:
        loss = LOSSES[name]
        own = sums[loss.part_of or name]
        if loss.part_of:
            own = {layer: own[layer] for layer in loss.layers}
        return _kernel(name).value(own, self._networks.weights[loss.network])

    def _in_tiles(
        self, losses: Sequence[str], layers: _Layers, generated: np.ndarray, target: np.ndarray
    ) -> list[float]:
        """The values of the losses for a large pair [H, W, 3]."""
        sums: dict[str, Sums] = {}
        for network, compared in layers.items():
            on_it = [name for name in losses if LOSSES[name].network == network]
            sums |= self._in_bands(on_it, network, compared, (generated, target))
        return [self._value(name, sums) for name in losses]

    def _in_bands(
        self, losses: Sequence[str], network: str, layers: Sequence[str], images: tuple[np.ndarray, np.ndarray]
    ) -> dict[str, Sums]:
        """The sums over a large pair [H, W, 3], as `_sums`: stage by stage in bands, and every band in tiles."""
        row, shape = NETWORKS[network], self._networks.on_ncnn[network].shape
        height, width = images[0].shape[:2]
        stages = stages_for(row, layers)
        windows = {
            stage.cut: [Window(shape(stage.cut, height, width, IMAGE), row.strides[stage.cut]) for _ in images]
            for stage in stages
            if stage.cut
        }

        def of_tile(stage: StageWork, tile: Tile) -> dict[str, Sums]:
            features = []
            for number, image in enumerate(images):
                first = stage.source == IMAGE
                source = image[tile.rows, tile.columns] if first else windows[stage.source][number].seen_by(tile)
                maps = self._maps(network, stage.computed, source, stage.source)
                if stage.cut:
                    windows[stage.cut][number].fill(tile, maps[stage.cut])
                features.append({network: _inside(tile.core, maps, stage.layers, row.strides)})
                release_memory()
            parts = (image[np.newaxis, tile.rows, tile.columns] for image in images)
            # The first stage counts the pixels.
            pixels = (tile.core.of(part)[0][: None if stage is stages[0] else 0] for part in parts)
            return self._sums(losses, *pixels, *features)

        sums: dict[str, Sums] = {family.whole: {} for family in self._plan.families(losses)}
        rows = band_rows(height, stages, chain.from_iterable(windows.values()))
        for band in bands(height, stages, rows):
            stage = stages[band.stage]
            for window in windows.get(stage.cut, ()):
                window.move(band.kept, band.bottom)
            of_tiles = self._for_tiles.map(partial(of_tile, stage), tiles_of(stage, height, width, band))
            sums = reduce(_all_added, of_tiles, sums)
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
        # Each takes what ncnn does, and a quarter of that besides: the features of its first image.
        threads = min(thread_count(), available_memory() / 2 / TILE_BYTES)
        return ThreadPoolExecutor(max(1, int(threads)), "tiles")


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


def tiles_of(stage: StageWork, height: int, width: int, band: Band) -> Iterator[Tile]:
    """The tiles of a band of a picture. Their size follows from the network and the picture alone."""
    return tiles(height, width, stage.margin, stage.step, TILE_BYTES // stage.memory, (band.top, band.bottom))
