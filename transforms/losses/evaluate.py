"""Compute a plan's columns for batches of pairs: the one place where networks, losses and gradients meet."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import numpy as np
import tensorflow as tf

from transforms.losses import fused, perceptual
from transforms.losses.networks.layers import LPIPS_LAYERS
from transforms.losses.networks.loaded import NetworkFeatures, Networks
from transforms.losses.plan import PIXEL_GRADIENT_COLUMNS, EvaluationError, Plan
from transforms.worker.threads import thread_count

Values = dict[str, tf.Tensor]


class Evaluator:
    """Computes the columns of a plan.

    One object serves every image size; calls from several threads are safe.

    Args:
        plan: what to compute.
        networks: of this plan, if they are loaded already.

    Raises:
        WeightsError: a weights file is missing, damaged or another than the plan names.
    """

    def __init__(self, plan: Plan, networks: Networks | None = None):
        self.plan = plan
        self._networks = networks or Networks(plan)
        self.device = self._networks.device
        self.precision = self._networks.precision
        self._executor = ThreadPoolExecutor(thread_count(), "fused")
        self._graph = cache(self._build_graph)

    def __call__(self, generated: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the columns that are defined for images of this size.

        Args:
            generated: [B, H, W, 3] RGB: uint8 or uint16 of full range, or float32 in [0, 1], which no kernel takes.
            target: the same shape and type.

        Returns:
            float32 [B] per column of the plan; columns not defined at this size are absent.

        Raises:
            EvaluationError: the two differ in shape or type, or TensorFlow could not do it, mostly for lack of memory.
        """
        if (generated.shape, generated.dtype) != (target.shape, target.dtype):
            # TensorFlow would broadcast one image against many, and one column against a whole image.
            sides = (f"{images.dtype}{list(images.shape)}" for images in (generated, target))
            raise EvaluationError("generated and target images differ: {} and {}".format(*sides))
        losses = self.plan.computed(*generated.shape[1:3])
        if not losses:
            return {}
        try:
            with self.device.scope():
                return self._evaluate(losses, generated, target)
        except (tf.errors.OpError, MemoryError) as error:
            raise EvaluationError(f"{type(error).__name__}: {error}") from error

    def _evaluate(self, losses: tuple[str, ...], generated: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
        whole_objective = self.plan.objective is not None and set(self.plan.objective_losses) <= set(losses)
        with_gradient = whole_objective and self.plan.pixel_gradient
        # The gradient, a GPU and floats need TensorFlow's form; on a CPU the kernels run while the network does.
        in_tensorflow = with_gradient or self.device.on_gpu or generated.dtype == np.float32
        fusible = () if in_tensorflow else tuple(name for name in losses if name in fused.KERNELS)
        fused_values = self._executor.map(partial(_apply_kernels, fusible), generated, target)
        in_graph = tuple(name for name in losses if name not in fusible)
        columns = self._run_graph(in_graph, with_gradient, generated, target) if in_graph else {}
        columns |= dict(zip(fusible, np.array(list(fused_values), np.float32).T, strict=True))
        if self.plan.objective and whole_objective and not with_gradient:
            columns["objective"] = np.asarray(self.plan.objective.evaluate(columns), np.float32)
        sources = {column.name: column.loss or column.name for column in self.plan.columns}
        return {name: columns[source] for name, source in sources.items() if source in columns}

    def _run_graph(
        self, losses: tuple[str, ...], with_gradient: bool, generated: np.ndarray, target: np.ndarray
    ) -> dict[str, np.ndarray]:
        values, lpips_features = self._graph(losses, with_gradient, generated.dtype)(generated, target)
        columns = {name: value.numpy() for name, value in values.items()}
        if lpips_features:
            # A view of the tensors' own memory: numpy() would copy hundreds of megabytes.
            views = {layer: np.asarray(memoryview(tensor)) for layer, tensor in lpips_features.items()}
            columns["lpips_vgg"] = fused.lpips.lpips_vgg(views, self._networks.heads, self._executor)
        return columns

    def _build_graph(
        self, losses: tuple[str, ...], with_gradient: bool, dtype: np.dtype
    ) -> Callable[..., tuple[Values, Values]]:
        """The graph for these losses: pairs in; values, and LPIPS' raw features if its head runs outside."""
        # NumPy and numba know bfloat16 only by its bits, and float16 hardly.
        fused_head = "lpips_vgg" in losses and not (with_gradient or self.device.on_gpu or self.precision == "float16")
        in_graph = [name for name in losses if not (fused_head and name == "lpips_vgg")]
        signature = [tf.TensorSpec([None, None, None, 3], tf.as_dtype(dtype))] * 2
        # Made outside the graph, or Grappler would see a constant and multiply by its rounded reciprocal instead: then
        # half the levels come out one bit off, 8 bits differ from the same 16 bits, and GMSD's luma is not MATLAB's.
        full_range = tf.constant(1 if dtype == np.float32 else np.iinfo(dtype).max, tf.float32)

        @tf.function(input_signature=signature, autograph=False)
        def graph(generated: tf.Tensor, target: tf.Tensor) -> tuple[Values, Values]:
            generated, target = (tf.cast(images, tf.float32) / full_range for images in (generated, target))
            if with_gradient:
                return self._values_and_gradient(generated, target, losses), {}
            both = self._networks.features(tf.concat([generated, target], 0), losses)
            pairs = tf.shape(generated)[0]
            features = [_rows(both, slice(0, pairs)), _rows(both, slice(pairs, None))]
            values = {name: self._networks.value(name, generated, target, *features) for name in in_graph}
            raw = {layer: both["lpips"][layer] for layer in LPIPS_LAYERS} if fused_head else {}
            if self.precision == "bfloat16":
                raw = {layer: tf.bitcast(tensor, tf.uint16) for layer, tensor in raw.items()}
            return values, raw

        return graph

    def _values_and_gradient(self, generated: tf.Tensor, target: tf.Tensor, losses: tuple[str, ...]) -> Values:
        assert self.plan.objective, "the launcher asks for an objective where it asks for its gradient"
        target_features = self._networks.features(target, losses)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(generated)
            features = self._networks.features(generated, losses)
            values = {
                name: self._networks.value(name, generated, target, features, target_features)
                for name in self.plan.objective_losses
            }
            values["objective"] = self.plan.objective.evaluate(values)
            # No layer mixes pairs, so row i of the sum's gradient is the gradient of pair i's objective.
            total = tf.reduce_sum(values["objective"])
        gradient = tape.gradient(total, generated)
        for name in losses:
            if name not in values:
                values[name] = self._networks.value(name, generated, target, features, target_features)
        norms = (
            tf.sqrt(tf.reduce_sum(tf.square(gradient), axis=(1, 2, 3))),
            tf.reduce_max(tf.abs(gradient), axis=(1, 2, 3)),
        )
        return values | dict(zip(PIXEL_GRADIENT_COLUMNS, norms, strict=True))


def _apply_kernels(losses: tuple[str, ...], generated: np.ndarray, target: np.ndarray) -> list[float]:
    return [fused.KERNELS[name](generated, target) for name in losses]


def _rows(features: NetworkFeatures, rows: slice) -> dict[str, perceptual.Features]:
    return {network: {layer: tensor[rows] for layer, tensor in maps.items()} for network, maps in features.items()}
