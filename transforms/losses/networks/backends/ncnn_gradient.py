"""Compute a network's features and the gradient through them with ncnn on a CPU, in float32, for TensorFlow's tapes."""

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import tensorflow as tf

from transforms.losses.networks.backends.ncnn_bands import BandedNetwork, Run
from transforms.losses.networks.layers import Layer
from transforms.losses.networks.specs import Preprocessing
from transforms.worker.aligned import aligned_empty
from transforms.worker.threads import thread_count


class NcnnGradientNetwork:
    """A network on constant weights, with the interface of `tensorflow.TensorFlowNetwork`.

    An image's features and gradient depend on the image alone. Calls from several threads are safe.

    Args:
        layers: by the name of its output, shallowest first: convolutions of 3 x 3 that keep the size, max-poolings of
            2 x 2 pixels.
        tensors: for each convolution `<name>.kernel` and `.bias`, float32, kernels HWIO for RGB input.
        preprocessing: belongs to the training that the weights come from.

    Raises:
        BackendError: ncnn is not installed, or refuses the network.
    """

    def __init__(self, layers: Mapping[str, Layer], tensors: Mapping[str, np.ndarray], preprocessing: Preprocessing):
        self.preprocessing = preprocessing
        self._network = BandedNetwork(layers, tensors)
        # Threads of an image wait while those of its bands work.
        self._of_images, self._of_bands = (ThreadPoolExecutor(thread_count(), name) for name in ("images", "bands"))

    def features(self, images: tf.Tensor, layers: Collection[str]) -> dict[str, tf.Tensor]:
        """Features of the layers, without a gradient. Nothing behind the deepest of them is computed.

        Args:
            images: float32 [B, H, W, 3] in [0, 1], RGB.
            layers: names of the network's layers.

        Returns:
            per layer float32 [B, h, w, C].

        Raises:
            EvaluationError: memory ran out; as TensorFlow's error, if a graph computes them.
        """
        _, *maps = self._call(self._prepared(images), tuple(layers), keeps=False)
        return dict(zip(layers, maps, strict=True))

    def differentiable_features(self, images: tf.Tensor, layers: Collection[str]) -> dict[str, tf.Tensor]:
        """As `features`, for a tape that watches the images; the pass costs 15 % more, and keeps a byte per feature."""
        layers = tuple(layers)

        @tf.custom_gradient
        def differentiable(prepared: tf.Tensor) -> tuple[list[tf.Tensor], Callable[..., tf.Tensor]]:
            codes, *maps = self._call(prepared, layers, keeps=True)

            def back(*slopes: tf.Tensor) -> tf.Tensor:
                arguments = [tf.shape(prepared), codes, *slopes]
                gradient = tf.numpy_function(partial(self._back, layers), arguments, tf.float32, stateful=False)
                return tf.ensure_shape(gradient, prepared.shape)

            return maps, back

        return dict(zip(layers, differentiable(self._prepared(images)), strict=True))

    def _prepared(self, images: tf.Tensor) -> tf.Tensor:
        return images * self.preprocessing.scale + self.preprocessing.offset

    def _call(self, prepared: tf.Tensor, layers: tuple[str, ...], keeps: bool) -> list[tf.Tensor]:
        types = [tf.uint8] + [tf.float32] * len(layers)
        codes, *maps = tf.numpy_function(partial(self._forward, layers, keeps), [prepared], types, stateful=False)
        shapes = ([prepared.shape[0], None, None, self._network.shape(layer, 1, 1)[2]] for layer in layers)
        return [codes, *map(tf.ensure_shape, maps, shapes)]

    def _forward(self, layers: tuple[str, ...], keeps: bool, images: np.ndarray) -> list[np.ndarray]:
        """The codes of each image, uint8 [B, N], N = 0 if there are none, and per layer float32 [B, h, w, C]."""
        count, *size = images.shape[:3]
        features = {layer: aligned_empty((count, *self._network.shape(layer, *size)), np.float32) for layer in layers}
        codes = aligned_empty((count, self._network.codes(layers, *size) if keeps else 0), np.uint8)

        def pass_forward(row: int, run: Run) -> None:
            rows = {layer: maps[row] for layer, maps in features.items()}
            self._network.forward(images[row], rows, codes[row] if keeps else None, run)

        self._for_each(count, pass_forward)
        return [codes, *features.values()]

    def _back(self, layers: tuple[str, ...], shape: np.ndarray, codes: np.ndarray, *slopes: np.ndarray) -> np.ndarray:
        """The gradient to the images, float32 [B, H, W, 3]."""
        gradient = aligned_empty(tuple(shape), np.float32)

        def pass_back(row: int, run: Run) -> None:
            rows = {layer: maps[row] for layer, maps in zip(layers, slopes, strict=True)}
            self._network.back(codes[row], rows, gradient[row], run)

        self._for_each(len(codes), pass_back)
        return gradient

    def _for_each(self, images: int, work: Callable[[int, Run], None]) -> None:
        """Give each thread an image; if there are more threads than images, give them bands of all images."""
        run = map if images >= thread_count() else self._of_bands.map
        for _ in self._of_images.map(lambda row: work(row, run), range(images)):
            pass
