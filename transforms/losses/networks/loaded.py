"""The networks of a plan, loaded once for all that use them.

TensorFlow is imported if it computes one of them.
"""

from collections.abc import Callable, Collection, Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import numpy as np

from transforms.losses.catalog import LOSSES
from transforms.losses.devices import Device, find_devices
from transforms.losses.networks.backends.ncnn import NcnnNetwork
from transforms.losses.networks.backends.ncnn_model import describe
from transforms.losses.networks.backends.ncnn_planes import PlanarBandedNetwork
from transforms.losses.networks.specs import NETWORKS, Network
from transforms.losses.plan import EvaluationError, Plan
from transforms.worker.memory import available_memory
from transforms.worker.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

    from transforms.losses.networks.backends.tensorflow import TensorFlowNetwork
    from transforms.losses.pair import Features

# By the name of the network.
NetworkFeatures = Mapping[str, "Features"]
# A network with features in planes.
PlanarNetwork = NcnnNetwork | PlanarBandedNetwork
# Takes images and names of layers, and gives features by layer.
FeaturesOf = Callable[["tf.Tensor", Collection[str]], "Features"]
# By how much more memory a pass up and back takes than one up.
_BACK = 2


class Networks:
    """The networks that the losses of a plan need, on one device.

    Args:
        plan: its losses decide which networks, its `weights` say where their files are.
        device: holds the networks; None: the first of this process.
        descends: whether gradients are wanted although the plan itself asks for none.

    Attributes:
        plan: as given.
        device: holds the networks.
        precision: of the networks' features: `float32`, `tensorfloat32`, `bfloat16` or `float16`.
        backend: `ncnn` if ncnn computes one of the networks, otherwise `tensorflow`.
        on_ncnn: by name, the networks whose features ncnn computes for kernels that know its layout; the features of
            the others are tensors.
        weights: by network, what its weights file holds for the losses on it; see `specs.Network.load`.

    Raises:
        BackendError: the plan's backend is missing here.
        WeightsError: a weights file is missing or damaged, or its hash differs from the plan's.
    """

    def __init__(self, plan: Plan, device: Device | None = None, descends: bool = False):
        self.plan = plan
        self.device = device or find_devices()[0]
        self.precision = self.device.precision(plan.precision, gradients=descends or plan.pixel_gradient)
        if self.device.on_gpu:
            import_tensorflow()
            import tensorflow as tf

            # One setting for the process, as a run has one precision.
            tf.config.experimental.enable_tensor_float_32_execution(self.precision == "tensorfloat32")
        dtype = "float32" if self.precision == "tensorfloat32" else self.precision
        self.weights: dict[str, Mapping[str, np.ndarray]] = {}
        self.on_ncnn: dict[str, PlanarNetwork] = {}
        self._features: dict[str, FeaturesOf] = {}
        # The same for a tape to differentiate.
        self._differentiable: dict[str, FeaturesOf] = {}
        self._had = 0
        self.backend = "tensorflow"
        # The kernels that its features meet know no masks.
        in_form = self.precision == "float32" and not (self.device.on_gpu or plan.protocol.masked)
        with_ncnn, differentiates = plan.backend == "ncnn" and in_form, descends or plan.pixel_gradient
        for name in plan.networks:
            network = NETWORKS[name]
            tensors, self.weights[name] = resolve_name(network.load)(network.read(plan.weights[name]))
            architecture = resolve_name(network.architecture)
            if with_ncnn and not differentiates and name in plan.networks_on_ncnn:
                self.on_ncnn[name] = planar_on_ncnn(network, tensors)
                self.backend = "ncnn"
                continue
            import_tensorflow()
            if with_ncnn and differentiates and network.gradient_in_bands:
                from transforms.losses.networks.backends.ncnn_gradient import NcnnGradientNetwork

                with_gradient = NcnnGradientNetwork(architecture, tensors, network.preprocessing)
                self._features[name] = with_gradient.features
                self._differentiable[name] = with_gradient.differentiable_features
                self.backend = "ncnn"
                continue
            with self.device.scope():
                on_tensorflow = _on_tensorflow(architecture, tensors, network.preprocessing, dtype)
            self._features[name] = self._differentiable[name] = on_tensorflow.features

    def features(self, images: "tf.Tensor", losses: Collection[str], gradients: bool = False) -> "dict[str, Features]":
        """Features of every layer that the losses need, by network and layer.

        Args:
            images: float32 [B, H, W, 3] in [0, 1], RGB.
            losses: names of the plan's losses.
            gradients: whether a tape is to differentiate them to the images; without it, those of ncnn have none.
        """
        layers = {name: self.plan.layers(name, losses) for name in self._features}
        features = self._differentiable if gradients else self._features
        return {name: features[name](images, needed) for name, needed in layers.items() if needed}

    def check_memory(self, losses: Collection[str], pixels: int, gradients: bool = False) -> None:
        """Refuse a pass for which memory is short: on CPUs TensorFlow 2.21 crashes if it runs out in a convolution.

        Args:
            losses: names of the plan's losses.
            pixels: of all pairs together.
            gradients: whether the pass comes back, too.

        Raises:
            EvaluationError: there is too little.
        """
        if self.device.on_gpu:
            return
        used = {LOSSES[name].network for name in losses} & self._features.keys()
        bytes = pixels * sum(NETWORKS[name].memory for name in used) * (_BACK if gradients else 1)
        if self.precision != "float32":
            bytes //= 2
        # TensorFlow keeps for the next pass what it once had.
        if bytes > self._had:
            available = available_memory()
            if bytes > available:
                raise EvaluationError(
                    f"out of memory: the network takes at least {bytes >> 20} MiB for {pixels} pixels, "
                    f"and {int(available) >> 20} MiB are available"
                )
            self._had = bytes


def planar_on_ncnn(network: Network, tensors: Mapping[str, np.ndarray]) -> PlanarNetwork:
    """A network on the tensors of its architecture, for kernels that take every channel by itself.

    Raises:
        BackendError: ncnn is not installed, or refuses the network.
    """
    architecture = resolve_name(network.architecture)
    if network.in_bands:
        return PlanarBandedNetwork(architecture, tensors, network.preprocessing)
    return NcnnNetwork(describe(architecture, tensors), network.preprocessing)


def _on_tensorflow(architecture: Any, *arguments: Any) -> "TensorFlowNetwork":
    if isinstance(architecture, type):
        network: TensorFlowNetwork = architecture(*arguments)
        return network
    from transforms.losses.networks.backends import tensorflow

    return tensorflow.TensorFlowNetwork(architecture, *arguments)
