"""The networks whose features losses compare, one row each. Free of TensorFlow.

A new network is a row here and a module that holds its architecture and the functions that the row names.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import Any, NamedTuple

import numpy as np

from transforms.losses.levels import full_range
from transforms.losses.networks.weights_file import UnreadableWeightsError, WeightsError, WeightsFile


@dataclass(frozen=True)
class Preprocessing:
    """How the network's training prepared its input: `x * scale + offset` per RGB channel, for x in [0, 1]."""

    scale: tuple[float, float, float]
    offset: tuple[float, float, float]

    def planes(self, image: np.ndarray) -> np.ndarray:
        """An image, [H, W, 3] RGB, uint8 or uint16 of full range or float32 in [0, 1], prepared: float32 [3, H, W]."""
        scale, offset = (np.array(values, np.float32) for values in (self.scale, self.offset))
        prepared = image.astype(np.float32) / np.float32(full_range(image)) * scale + offset
        return np.ascontiguousarray(prepared.transpose(2, 0, 1))


class Stage(NamedTuple):
    """Layers that a large picture goes through together, on ncnn: they end at a pooling, or at the deepest layer.

    Attributes:
        cut: the pooling, whose output the next stage gets. Empty: this is the last stage.
        reach: how many pixels beyond its own stride a feature sees in the stage's input, on the side where it sees
            further.
        memory: bytes that ncnn takes at most, per pixel of an image.
    """

    cut: str
    reach: int
    memory: int


@dataclass(frozen=True)
class Network:
    """A network on published weights. Functions and tables elsewhere are dotted names such as `package.module:name`.

    Attributes:
        name: names the network in a loss's row, in `Plan.weights` and in run.json.
        layers: the layers whose features losses may compare, shallowest first, each with the height and width in pixels
            below which it has no pixel left.
        architecture: its chain of `layers.Layer`, by the name of a layer's output; or a class with the other arguments
            and the `features` of `backends.tensorflow.TensorFlowNetwork`, which only TensorFlow computes.
        preprocessing: what belongs to the weights.
        load: `(content of the weights file) -> (tensors of the architecture, weights of the losses on it)`; checks
            names and shapes, and raises `WeightsError`.
        fetch: `() -> path`; downloads the weights file unless this machine has it. For a network with a `sha256` it
            takes the download's local copy instead, if there is one: `(archive: Path | None) -> path`.
        cached: `() -> Path`, where `fetch` keeps the file.
        flag: name of the flag that takes the path of another copy of the file; networks may share a file and its flag.
        help: of that flag.
        sha256: of the weights file. Empty: the file's content when the run starts is what counts.
        strides: of each layer, pixels from a feature to the next; position i begins at pixel i * stride. Empty: its
            features cannot be computed in tiles.
        stages: of the layers, shallowest first: shallow layers take the memory and see little around them, deep ones
            take little memory and see far. Without strides there are none.
        memory: bytes that TensorFlow takes for a pass at least, per pixel of a pair, in float32 on a CPU.
        memory_on_ncnn: bytes that ncnn takes for a pass at most, per pixel of an image.
        faster_on_ncnn: whether most of its work is convolutions of 3x3, for which ncnn has Winograd's method.
        in_bands: whether its convolutions are of 3x3 and keep the size, so that ncnn computes it in bands of rows.
        gradient_in_bands: whether its poolings are max-poolings of 2x2 besides, so that ncnn computes the gradient
            through it, too.
    """

    name: str
    layers: Mapping[str, int]
    architecture: str
    preprocessing: Preprocessing
    load: str
    fetch: str
    cached: str
    flag: str
    help: str
    sha256: str = ""
    strides: Mapping[str, int] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()
    memory: int = 0
    memory_on_ncnn: int = 0
    faster_on_ncnn: bool = True
    in_bands: bool = False
    gradient_in_bands: bool = False

    @property
    def reach(self) -> int:
        """How many pixels beyond its own stride the deepest layer's feature sees, on the side where it sees further."""
        return sum(stage.reach for stage in self.stages)

    def smallest_side(self, layers: Collection[str]) -> int:
        """Height and width in pixels below which the deepest of the layers has no pixel left."""
        return max(self.layers[layer] for layer in layers)

    def weights(self, path: str = "") -> WeightsFile:
        """The weights file at the path, pinned and checked; by default the cached one, fetched if it is missing.

        Raises:
            WeightsError: the file cannot be fetched or read, or its hash is not `sha256`.
        """
        if self.sha256 and path:
            pinned = WeightsFile(path, self.sha256)
            pinned.read()
            return pinned
        path = path or str(resolve_name(self.fetch)())
        return WeightsFile(path, self.sha256) if self.sha256 else WeightsFile.at(path)

    def read(self, weights: WeightsFile) -> bytes:
        """The content of a weights file; if its path leads nowhere, that of this machine's own cached copy.

        A worker does not see the cache of the machine that launched the run.

        Raises:
            WeightsError: neither can be read, or the hash of the one that can is wrong.
        """
        try:
            return weights.read()
        except UnreadableWeightsError as unreadable:
            cached = WeightsFile(str(resolve_name(self.cached)()), weights.sha256)
            try:
                return cached.read()
            except WeightsError as error:
                tried = unreadable if cached == weights else f"{unreadable}; {error}"
                # `pairloss weights` fetches the pinned files.
                fetch = "run `pairloss weights` on every worker, best when its image is built, or " * bool(self.sha256)
                raise WeightsError(f"{tried}; {fetch}give --{self.flag}=gs://BUCKET/FILE") from error


# Both published trainings of VGG16 have these, by the name of what a layer gives: see `vgg16`.
VGG16_LAYERS = {
    layer: side
    for halvings, convolutions in enumerate((2, 2, 3, 3, 3))
    for layer, side in (
        *((f"relu{halvings + 1}_{number}", 2**halvings) for number in range(1, convolutions + 1)),
        (f"pool{halvings + 1}", 2 ** (halvings + 1)),
    )
}
VGG16_MEMORY = 1200
VGG16_MEMORY_IN_BANDS = 750
DISTS_MEMORY_IN_BANDS = 1000


def _vgg16_stages(first: int, *reaches: int) -> tuple[Stage, ...]:
    """The stages, of which the first one takes so many bytes per pixel."""
    # The deep ones take less. But larger tiles of theirs would be too few for the threads.
    memory = {"pool2": first, "pool3": 750, "pool4": 450, "": 110}
    return tuple(Stage(cut, reach, bytes) for (cut, bytes), reach in zip(memory.items(), reaches, strict=True))


# A feature of relu5_3 sees 196 x 196 pixels, 16 of them its own.
VGG16_STAGES = _vgg16_stages(VGG16_MEMORY_IN_BANDS, 6, 12, 24, 48)
# LPIPS compares these five, shallowest first.
LPIPS_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")

# AlexNet's, by the name of what a layer gives: see `alexnet`. LPIPS compares them all.
ALEXNET_LAYERS = {"relu1": 7, "relu2": 15, "relu3": 31, "relu4": 31, "relu5": 31}

# The ScalingLayer of LPIPS: x -> 2x - 1, minus the shift, over the scale (ImageNet's mean and deviation on [-1, 1]).
_LPIPS_SHIFT, _LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_LPIPS_PREPROCESSING = Preprocessing(
    scale=tuple(2 / scale for scale in _LPIPS_SCALE),  # type: ignore[arg-type]
    offset=tuple((-1 - shift) / scale for shift, scale in zip(_LPIPS_SHIFT, _LPIPS_SCALE, strict=True)),  # type: ignore[arg-type]
)
# LPIPS and DISTS share a file. The safetensors file that `pairloss weights` makes depends on the tensors alone.
_VGG16_SHA256 = "36862b2061b64fdb5029f25baf4af590ce7e93345348c93a91b5504ef571c143"
_VGG16_HELP = "VGG16 of LPIPS and DISTS, local, gs:// or s3://; default: fetched once, cached"


def _on_lpips_weights(name: str, weights: str, **row: Any) -> Network:
    """The row of a network whose weights `lpips_weights` fetches, under the name `weights`."""
    source = f"transforms.losses.networks.lpips_weights:{weights}"
    functions = {function: f"{source}.{function}" for function in ("load", "fetch", "cached")}
    return Network(name=name, preprocessing=_LPIPS_PREPROCESSING, **functions | row)


NETWORKS = {
    network.name: network
    for network in (
        _on_lpips_weights(
            "vgg16_lpips",
            "VGG16",
            layers=VGG16_LAYERS,
            architecture="transforms.losses.networks.vgg16:LAYERS",
            flag="weights",
            help=_VGG16_HELP,
            sha256=_VGG16_SHA256,
            strides=VGG16_LAYERS,
            stages=VGG16_STAGES,
            memory=VGG16_MEMORY,
            memory_on_ncnn=VGG16_MEMORY_IN_BANDS,
            in_bands=True,
            gradient_in_bands=True,
        ),
        _on_lpips_weights(
            "vgg16_dists",
            "VGG16",
            # DISTS rounds up when it halves; below these sizes its maps would be mostly padding.
            layers={layer: VGG16_LAYERS[layer] for layer in LPIPS_LAYERS},
            architecture="transforms.losses.networks.vgg16_dists:LAYERS",
            load="transforms.losses.networks.vgg16_dists:load",
            flag="weights",
            help=_VGG16_HELP,
            sha256=_VGG16_SHA256,
            strides=VGG16_LAYERS,
            # L2 pooling sees a pixel more than max-pooling.
            stages=_vgg16_stages(DISTS_MEMORY_IN_BANDS, 9, 16, 32, 48),
            memory=VGG16_MEMORY,
            memory_on_ncnn=DISTS_MEMORY_IN_BANDS,
            in_bands=True,
        ),
        _on_lpips_weights(
            "alexnet_lpips",
            "ALEXNET",
            layers=ALEXNET_LAYERS,
            architecture="transforms.losses.networks.alexnet:LAYERS",
            flag="alexnet_weights",
            help="the same for lpips_alex",
            sha256="c249201940720845ad554a67eccf28fedd15859b44a3ce0234059ef8c7043363",
            strides={"relu1": 4, "relu2": 8, "relu3": 16, "relu4": 16, "relu5": 16},
            stages=(Stage("", 81, 310),),
            memory_on_ncnn=310,
            faster_on_ncnn=False,
        ),
        Network(
            name="vgg16_keras",
            layers=VGG16_LAYERS,
            architecture="transforms.losses.networks.vgg16:LAYERS",
            # "caffe" mode: 0 to 255 minus the mean. The loader turns the kernels from BGR to RGB.
            preprocessing=Preprocessing(scale=(255.0, 255.0, 255.0), offset=(-123.68, -116.779, -103.939)),
            load="transforms.losses.networks.keras_weights:load",
            fetch="transforms.losses.networks.keras_weights:fetch",
            cached="transforms.losses.networks.keras_weights:cached",
            flag="keras_weights",
            help="Keras' VGG16 .h5 file without the top, for vgg_mse_keras and style_keras",
            strides=VGG16_LAYERS,
            stages=VGG16_STAGES,
            memory=VGG16_MEMORY,
            memory_on_ncnn=VGG16_MEMORY_IN_BANDS,
            in_bands=True,
            gradient_in_bands=True,
        ),
    )
}
