"""Compute a network's features in bands of rows, for kernels that take every channel by itself. Free of TensorFlow."""

from collections.abc import Collection, Mapping

import numpy as np

from transforms.losses.networks.backends.ncnn_bands import BandedNetwork
from transforms.losses.networks.backends.ncnn_model import IMAGE
from transforms.losses.networks.layers import Layer
from transforms.losses.networks.specs import Preprocessing


class PlanarBandedNetwork:
    """A network on constant weights, with the interface of `ncnn.NcnnNetwork`; it takes less time and memory.

    Args:
        layers: as for `BandedNetwork`.
        tensors: as for `BandedNetwork`.
        preprocessing: belongs to the training that the weights come from.

    Raises:
        BackendError: ncnn is not installed, or refuses the network.
    """

    def __init__(self, layers: Mapping[str, Layer], tensors: Mapping[str, np.ndarray], preprocessing: Preprocessing):
        self._network = BandedNetwork(layers, tensors, back=False)
        self._preprocessing = preprocessing

    def shape(self, layer: str, height: int, width: int, source: str = IMAGE) -> tuple[int, int, int]:
        """The shape (C, h, w) of a layer's output; see `ncnn_model.NcnnModel`."""
        height, width, channels = self._network.shape(layer, height, width, source)
        return channels, height, width

    def features(self, image: np.ndarray, layers: Collection[str], source: str = IMAGE) -> dict[str, np.ndarray]:
        """Features of the layers, float32 [C, h·w]; see `ncnn.NcnnNetwork.features`."""
        maps = self._preprocessing.planes(image) if source == IMAGE else image
        features = self._network.planes(maps, layers, source)
        return {layer: planes.reshape(len(planes), -1) for layer, planes in features.items()}
