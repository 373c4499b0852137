"""Compute a network's features with ncnn on a CPU, in float32, by Winograd's convolutions. Free of TensorFlow.

Winograd's minimal filtering (Lavin and Gray 2016, https://arxiv.org/abs/1509.09308) needs a fraction of the
multiplications of a 3x3 convolution. One thread computes an image, so that its features depend on the image alone, and
as many images are computed at once as the caller has threads: that is faster than all threads on one image.
"""

import tempfile
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from transforms.losses.networks.backends.ncnn_model import IMAGE, NcnnModel
from transforms.losses.networks.specs import Preprocessing
from transforms.losses.plan import BackendError, EvaluationError


class NcnnNetwork:
    """A network on constant weights. Calls from several threads are safe and run in parallel.

    Args:
        model: layers and weights.
        preprocessing: belongs to the training that the weights come from.

    Attributes:
        shape: as `NcnnModel.shape`.

    Raises:
        BackendError: ncnn is not installed, or refuses the model.
    """

    def __init__(self, model: NcnnModel, preprocessing: Preprocessing):
        self._net = load_net(model.text, model.weights)
        import ncnn

        self._preprocessing = preprocessing
        self._layers, self.shape = model.layers, model.shape
        self._mat, self._allocator = ncnn.Mat, ncnn.UnlockedPoolAllocator

    def features(self, image: np.ndarray, layers: Collection[str], source: str = IMAGE) -> dict[str, np.ndarray]:
        """Features of the layers. Nothing behind the deepest of them is computed.

        Args:
            image: [H, W, 3] RGB: uint8 or uint16 of full range, or float32 in [0, 1]; or the output of the layer
                `source`, float32 [C, H, W].
            layers: names of the network's layers, in any order, deeper than `source`.
            source: a layer that has been computed already.

        Returns:
            per layer float32 [C, h·w].

        Raises:
            EvaluationError: memory ran out, or ncnn returned something else than the layer's output.
        """
        prepared = self._preprocessing.planes(image) if source == IMAGE else image
        _, height, width = prepared.shape
        # A Mat does not keep the array it is made of alive, and ncnn may work in place: it gets a copy of its own.
        data = self._mat(prepared).clone()
        extractor = self._net.create_extractor()
        # By default the network keeps memory for the next image, of every size that an image had.
        allocators = workspace, blobs = self._allocator(), self._allocator()
        extractor.set_workspace_allocator(workspace)
        extractor.set_blob_allocator(blobs)
        check_code(extractor.input(source, data), "the input")
        del data
        features = {}
        # ncnn has freed a shallower layer once it has computed a deeper one.
        for layer in sorted(layers, key=self._layers.index):
            code, output = extractor.extract(layer)
            try:
                check_code(code, layer)
                maps = np.array(output)
            finally:
                # An allocator must outlive what it gave, so this must not stay in the frame of an error.
                del output
            shape = self.shape(layer, height, width, source)
            if (maps.shape, maps.dtype) != (shape, np.float32):
                raise EvaluationError(f"ncnn: {layer} is {maps.dtype}{list(maps.shape)}, expected float32{list(shape)}")
            features[layer] = maps.reshape(shape[0], -1)
            for allocator in allocators:
                allocator.clear()
        return features


def load_net(text: str, weights: bytes) -> Any:
    """Load a model into ncnn, to be computed in float32 by one thread at a time per extractor.

    Args:
        text: the content of a `.param` file.
        weights: the content of a `.bin` file.

    Raises:
        BackendError: ncnn is not installed, or refuses the model.
    """
    if not find_spec("ncnn"):
        raise BackendError(
            "this run computes its networks with ncnn, and this worker cannot import it: install the package ncnn "
            "on every worker, as on the machine that launches the run"
        )
    import ncnn

    net = ncnn.Net()
    options = net.opt
    options.num_threads = 1
    options.use_vulkan_compute = False
    # Intermediate results are freed as soon as the next layer has read them.
    options.lightmode = True
    # Most of these are on by default.
    for option in dir(options):
        if option.startswith(("use_fp16_", "use_bf16_", "use_int8_")):
            setattr(options, option, False)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "weights.bin"
        path.write_bytes(weights)
        check_code(net.load_param_mem(text), "the layers", BackendError)
        check_code(net.load_model(str(path)), "the weights", BackendError)
    return net


def check_code(code: Any, what: str, error: type[Exception] = EvaluationError) -> None:
    """Raise an error for a code of ncnn that stands for a failure."""
    if code:
        raise error(f"ncnn failed with code {code} at {what}; -100 means that memory ran out")
