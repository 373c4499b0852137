"""A network's pass forward and its pass back by ncnn, layer by layer, in bands of rows. Free of TensorFlow.

ncnn computes the convolutions alone. Those of the pass back are convolutions with the kernels turned by 180 degrees and
their channels swapped, so that Winograd's method serves them, too. A band is so small that a convolution finds its own
intermediate results in the core's cache; a shallow layer in one piece takes twice the time.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from transforms.losses.networks.backends.ncnn import check_code, load_net
from transforms.losses.networks.backends.ncnn_maps import (
    LARGEST,
    POSITIVE,
    framed,
    framed_planes,
    inside,
    mask,
    pool,
    pool_l2,
    to_maps,
    to_pixels,
    to_planes,
    unpool,
)
from transforms.losses.networks.backends.ncnn_model import IMAGE, describe_apart
from transforms.losses.networks.layers import Layer
from transforms.losses.plan import EvaluationError

# Bytes of a band and its intermediate results, unless the convolution's weights take more.
_BAND_BYTES = 2**23
# Winograd's method makes 36 products of a tile of 4 x 4 pixels, and keeps them for the input and for the output.
_TILE, _PRODUCTS = 4, 36

# Calls a function for every band, in any order.
Run = Callable[[Callable[[slice], None], Iterable[slice]], Iterable[None]]
# Gets the name of a layer, rows of its output as ncnn lays them out, and which rows these are.
Write = Callable[[str, np.ndarray, slice], None]

_RGB = 3
_NO_CODES, _NO_MAPS = np.empty((0, 0, 0), np.uint8), np.empty((0, 0, 0), np.float32)


class _Step(NamedTuple):
    """A convolution with ReLU in the pass of one image, perhaps with a pooling behind it.

    Attributes:
        name: of the convolution's output.
        inputs: its channels.
        channels: of the output.
        height: of input and output.
        width: of input and output.
        pool: name of the pooling's output; empty: the pass needs none.
        pooling: its kind, as `layers.Layer` has it; empty without one.
        codes: of the output, uint8 [C / P, h, w * P]; without a pass back, empty.
    """

    name: str
    inputs: int
    channels: int
    height: int
    width: int
    pool: str
    pooling: str
    codes: np.ndarray

    @property
    def size(self) -> int:
        """How many features the output has."""
        return self.channels * self.height * self.width

    @property
    def halved(self) -> tuple[int, int]:
        """Height and width of the pooling's output."""
        up = self.pooling == "l2"
        return (self.height + up) // 2, (self.width + up) // 2

    @property
    def pools_bands(self) -> bool:
        """True if the pooling sees nothing beyond a band: then the whole output is never in memory."""
        return self.pooling == "max"


class BandedNetwork:
    """A network of convolutions of 3 x 3 and poolings, forward and, through max-poolings, back. Threads may share it.

    The bits of an image depend on the image alone, not on the threads that compute its bands.

    Args:
        layers: by the name of its output, shallowest first; see `specs.Network.in_bands`.
        tensors: for each convolution `<name>.kernel` and `.bias`, float32, kernels HWIO for RGB input.
        back: whether to load what the method `back` needs.

    Raises:
        BackendError: ncnn is not installed, or refuses the network.
    """

    def __init__(self, layers: Mapping[str, Layer], tensors: Mapping[str, np.ndarray], back: bool = True):
        self._forward = load_net(*describe_apart(layers, tensors))
        self._back = load_net(*describe_apart(layers, tensors, back=True)) if back else None
        import ncnn

        self._mat = ncnn.Mat
        self._layers = layers
        kernels = {name: f"{layer.convolution}.kernel" for name, layer in layers.items() if layer.convolution}
        self._channels = {name: tensors[kernel].shape[2:] for name, kernel in kernels.items()}
        # The channels of all layers are multiples of what any processor takes at once.
        self._pack = self._extract(self._forward, next(iter(layers)), framed(3, 1, 1, 1), 1, slice(0, 1)).elempack

    def shape(self, layer: str, height: int, width: int, source: str = IMAGE) -> tuple[int, int, int]:
        """Height, width and channels of the layer's output for an image, or an output of `source`, of this size."""
        step = self._steps([layer], height, width, source=source)[-1]
        return *(step.halved if layer == step.pool else (step.height, step.width)), step.channels

    def codes(self, layers: Collection[str], height: int, width: int) -> int:
        """How many bytes the pass back to an image of this size needs of the pass forward to these layers."""
        return sum(step.size for step in self._steps(layers, height, width))

    def forward(
        self, image: np.ndarray, features: Mapping[str, np.ndarray], codes: np.ndarray | None = None, run: Run = map
    ) -> None:
        """Compute features of layers. Nothing behind the deepest of them is computed.

        Args:
            image: float32 [H, W, 3], prepared as the weights want it.
            features: by layer, float32 [h, w, C] to be filled.
            codes: uint8 [N], N as the method `codes` tells, to be filled for `back`; None: there will be no way back.
            run: calls a function for every band.

        Raises:
            EvaluationError: memory ran out, or ncnn returned something else than a layer's output.
        """

        def write(layer: str, maps: np.ndarray, rows: slice) -> None:
            if layer in features:
                to_pixels(maps, features[layer][rows], self._pack)

        height, width = image.shape[:2]
        self._ascend(
            framed_planes(image.transpose(2, 0, 1), 1), self._steps(features, height, width, codes), write, run
        )

    def planes(self, maps: np.ndarray, layers: Collection[str], source: str = IMAGE) -> dict[str, np.ndarray]:
        """Features of layers, every channel by itself. Nothing behind the deepest of them is computed.

        Args:
            maps: float32 [C, H, W]: an image, prepared as the weights want it, or the output of the layer `source`.
            layers: names of the network's layers, deeper than `source`.
            source: a layer that has been computed already, or `IMAGE`.

        Returns:
            per layer float32 [C, h, w].

        Raises:
            EvaluationError: as for `forward`.
        """
        channels, height, width = maps.shape
        features = {}
        for layer in layers:
            *sides, count = self.shape(layer, height, width, source)
            features[layer] = np.empty((count, *sides), np.float32)

        def write(layer: str, maps: np.ndarray, rows: slice) -> None:
            if layer in features:
                to_planes(maps, rows.start, features[layer], self._pack)

        source_maps = framed_planes(maps, self._pack_of(channels))
        self._ascend(source_maps, self._steps(layers, height, width, source=source), write, map)
        return features

    def back(self, codes: np.ndarray, slopes: Mapping[str, np.ndarray], gradient: np.ndarray, run: Run = map) -> None:
        """Compute the gradient to the image.

        Args:
            codes: as `forward` filled them for the features of these layers.
            slopes: by layer, the gradient to its features, float32 [h, w, C].
            gradient: float32 [H, W, 3] to be filled.
            run: calls a function for every band.

        Raises:
            EvaluationError: as for `forward`.
        """
        height, width = gradient.shape[:2]
        steps = self._steps(slopes, height, width, codes)
        deepest = steps[-1].pool or steps[-1].name
        above = to_maps(slopes[deepest], self._pack)
        shallower = {layer: slope for layer, slope in slopes.items() if layer != deepest}
        source = self._framed_like(steps[-1])
        self._enter(steps[-1], above, shallower, source, slice(0, above.shape[1]))
        for below, step in reversed(list(pairwise(steps))):
            target = self._framed_like(below)
            band = partial(self._back_band, step, source, below, shallower, target)
            _exhaust(run(band, _bands(step.channels, step.inputs, step.height, step.width)))
            source = target
        band = partial(self._back_to_image, steps[0], source, gradient)
        _exhaust(run(band, _bands(steps[0].channels, steps[0].inputs, height, width)))

    def _ascend(self, source: np.ndarray, steps: Iterable[_Step], write: Write, run: Run) -> None:
        """Make the steps from framed maps on, and hand on every output."""
        for step in steps:
            size = step.halved if step.pools_bands else (step.height, step.width)
            target = framed(step.channels, *size, self._pack)
            band = partial(self._forward_band, step, source, target, write)
            _exhaust(run(band, _bands(step.inputs, step.channels, step.height, step.width)))
            if step.pooling == "l2":
                source, target = target, framed(step.channels, *step.halved, self._pack)
                groups = (slice(group, group + 1) for group in range(len(source)))
                _exhaust(run(partial(pool_l2, source, target, self._pack), groups))
            if step.pool:
                write(step.pool, inside(target, self._pack), slice(0, step.halved[0]))
            source = target

    def _forward_band(self, step: _Step, source: np.ndarray, target: np.ndarray, write: Write, rows: slice) -> None:
        maps = self._convolved(self._forward, step, source, step.inputs, step.channels, rows)
        write(step.name, maps, rows)
        if step.codes.size:
            np.greater(maps, 0, out=step.codes[:, rows].view(np.bool_))
        if step.pools_bands:
            pool(maps, rows.start, step.codes, target, self._pack)
        else:
            inside(target, self._pack)[:, rows] = maps

    def _back_band(
        self,
        step: _Step,
        source: np.ndarray,
        below: _Step,
        slopes: Mapping[str, np.ndarray],
        target: np.ndarray,
        rows: slice,
    ) -> None:
        above = self._convolved(self._back, step, source, step.channels, step.inputs, rows)
        self._enter(below, above, slopes, target, rows)

    def _back_to_image(self, step: _Step, source: np.ndarray, gradient: np.ndarray, rows: slice) -> None:
        maps = self._convolved(self._back, step, source, step.channels, step.inputs, rows)
        gradient[rows] = maps.transpose(1, 2, 0)

    def _enter(
        self, step: _Step, above: np.ndarray, slopes: Mapping[str, np.ndarray], target: np.ndarray, rows: slice
    ) -> None:
        """Lead the gradient to rows of a step's result, and the slopes of its layers, back to its convolution."""
        if step.pool in slopes:
            above += to_maps(slopes[step.pool][rows], self._pack)
        if step.pool:
            unpool(above, rows.start, target, self._pack)
            # The last band takes the row along that the pooling left out.
            last = rows.stop == step.height // 2
            rows = slice(2 * rows.start, step.height if last else 2 * rows.stop)
            above = _NO_MAPS
        least = np.uint8(LARGEST if step.pool else POSITIVE)
        slope = to_maps(slopes[step.name][rows], self._pack) if step.name in slopes else _NO_MAPS
        mask(above, step.codes, least, slope, rows.start, rows.stop - rows.start, target, self._pack)

    def _convolved(
        self, net: Any, step: _Step, source: np.ndarray, inputs: int, channels: int, rows: slice
    ) -> np.ndarray:
        """Rows of a convolution's output, the caller's own."""
        output = self._extract(net, step.name, source, self._pack_of(inputs), rows)
        pack = self._pack_of(channels)
        found = output.elempack, output.c, output.h, output.w, output.elemsize
        expected = pack, channels // pack, rows.stop - rows.start, step.width, 4 * pack
        if found != expected:
            raise EvaluationError(f"ncnn: P, C / P, h, w and bytes of {step.name} are {found}, expected {expected}")
        # NumPy takes no Mat of several channels side by side.
        output.elempack, output.elemsize = 1, 4
        output.w, output.cstep = output.w * pack, output.cstep * pack
        return np.asarray(output)

    def _extract(self, net: Any, name: str, source: np.ndarray, pack: int, rows: slice) -> Any:
        groups, height, width = source.shape
        # The rows stay where they are, because a convolution does not change its input: a Mat of one dimension, on
        # memory that the caller keeps, is told that it has three.
        mat = self._mat(source.reshape(-1)[rows.start * width :])
        mat.dims, mat.w, mat.h, mat.c = 3, width // pack, rows.stop - rows.start + 2, groups
        mat.elempack, mat.elemsize, mat.cstep = pack, 4 * pack, height * width // pack
        extractor = net.create_extractor()
        check_code(extractor.input(f"{name}_input", mat), "the input")
        code, output = extractor.extract(name, 1)
        check_code(code, name)
        return output

    def _framed_like(self, step: _Step) -> np.ndarray:
        return framed(step.channels, step.height, step.width, self._pack)

    def _pack_of(self, channels: int) -> int:
        # ncnn keeps the image's channels apart.
        return 1 if channels == _RGB else self._pack

    def _steps(
        self, layers: Collection[str], height: int, width: int, codes: np.ndarray | None = None, source: str = IMAGE
    ) -> list[_Step]:
        """The steps from an image, or an output of `source`, of this size to the deepest of the layers."""
        steps: list[_Step] = []
        start = 0
        order = [IMAGE, *self._layers]
        for name in order[order.index(source) + 1 : max(map(order.index, layers)) + 1]:
            if name not in self._channels:
                steps[-1] = steps[-1]._replace(pool=name, pooling=self._layers[name].pooling)
                height, width = steps[-1].halved
                continue
            inputs, channels = self._channels[name]
            step = _Step(name, inputs, channels, height, width, "", "", _NO_CODES)
            if codes is not None:
                step = step._replace(codes=codes[start : start + step.size].reshape(-1, height, width * self._pack))
                start += step.size
            steps.append(step)
        return steps


def _bands(inputs: int, channels: int, height: int, width: int) -> Iterator[slice]:
    """The rows of a convolution's output, cut into bands."""
    weights = 4 * _PRODUCTS * inputs * channels
    row = 4 * width * (inputs + channels) * (1 + _PRODUCTS / _TILE**2)
    rows = max(1, int(max(_BAND_BYTES, weights) / row) // _TILE) * _TILE
    return (slice(start, min(start + rows, height)) for start in range(0, height, rows))


def _exhaust(results: Iterable[None]) -> None:
    deque(results, maxlen=0)
