"""Compute losses in TensorFlow's graphs: on GPUs, in tiles, with a gradient, and where a loss has no kernel."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pkgutil import resolve_name

import numpy as np
import tensorflow as tf

from transforms.losses.catalog import LOSSES
from transforms.losses.mean_matching import match_mean
from transforms.losses.networks.loaded import NetworkFeatures, Networks
from transforms.losses.objective_function import ObjectiveFunction
from transforms.losses.pair import Features, as_images, family_values
from transforms.losses.plan import PIXEL_GRADIENT_COLUMNS, EvaluationError, OutOfMemoryError, Plan
from transforms.losses.reductions import Reductions
from transforms.losses.shared_targets import SharedTargets
from transforms.losses.tiles import TiledEvaluator
from transforms.worker.stopwatch import lap

Values = dict[str, tf.Tensor]


class GraphEvaluator:
    """Computes losses of a plan on the networks' device.

    Args:
        plan: whose losses to compute.
        networks: of this plan.
        executor: its threads run the kernels of losses on features.
    """

    def __init__(self, plan: Plan, networks: Networks, executor: Executor):
        self.plan = plan
        self.precision = networks.precision
        self._networks = networks
        self._executor = executor
        self._graph = cache(self._build_graph)
        self._tiled = TiledEvaluator(plan, networks)

    def match_means(
        self, generated: np.ndarray, target: np.ndarray, *mask: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Both as float32 images in [0, 1], the generated ones scaled to the means of their targets, within a mask."""
        with self._on_device():
            theirs = as_images(target)
            return match_mean(as_images(generated), theirs, *mask).numpy(), theirs.numpy()

    def in_tiles(self, losses: Sequence[str], *images: np.ndarray) -> dict[str, np.ndarray]:
        """As `TiledEvaluator`."""
        with self._on_device():
            return self._tiled(losses, *images)

    def __call__(
        self,
        losses: tuple[str, ...],
        on_features: tuple[str, ...],
        with_gradient: bool,
        shared: SharedTargets | None,
        generated: np.ndarray,
        target: np.ndarray,
        *mask: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """The losses of each pair, float32 [B].

        Args:
            losses: to compute in the graph.
            on_features: losses whose kernels compare the features that the graph computes.
            with_gradient: whether to add the objective and the norms of its gradient at the generated pixels.
            shared: how the pairs share their targets.
            generated: [B, H, W, 3] RGB: uint8 or uint16 of full range, or float32 in [0, 1].
            target: the same shape and type.
            mask: if the plan's protocol is masked: the pixels that count, bool [B, H, W].

        Raises:
            OutOfMemoryError: the device has too little memory.
            EvaluationError: TensorFlow fails for another reason.
        """
        with self._on_device():
            return self._run(losses, on_features, with_gradient, shared, generated, target, *mask)

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """Compute on the device in the block, and turn TensorFlow's errors into ours."""
        try:
            with self._networks.device.scope():
                yield
        except tf.errors.OpError as error:
            failure = OutOfMemoryError if isinstance(error, tf.errors.ResourceExhaustedError) else EvaluationError
            raise failure(f"{type(error).__name__}: {error}") from error

    def _run(
        self,
        losses: tuple[str, ...],
        on_features: tuple[str, ...],
        with_gradient: bool,
        shared: SharedTargets | None,
        generated: np.ndarray,
        target: np.ndarray,
        *mask: np.ndarray,
    ) -> dict[str, np.ndarray]:
        graph = self._graph(losses, on_features, with_gradient, generated.dtype, shared is not None)
        # The network gets each shared target once.
        once = (target[shared.first], np.array(shared.rows, np.int32)) if shared else ()
        values, features = graph(generated, target, *mask, *once)
        columns = {name: value.numpy() for name, value in values.items()}
        for family in self.plan.families(on_features):
            loss = LOSSES[family.whole]
            # A view of the tensors' own memory: numpy() would copy hundreds of megabytes.
            views = {layer: np.asarray(memoryview(tensor)) for layer, tensor in features[family.whole].items()}
            weights = self._networks.weights[loss.network]
            rows = shared.rows if shared else None
            with lap("losses"):
                shares = resolve_name(loss.kernel)(views, weights, self._executor, rows)
            for name in family.members:
                columns[name] = sum(map(shares.get, self.plan.compared_layers(name))).astype(np.float32)
        return columns

    def _build_graph(
        self, losses: tuple[str, ...], on_features: tuple[str, ...], with_gradient: bool, dtype: np.dtype, shared: bool
    ) -> Callable[..., tuple[Values, dict[str, Values]]]:
        """The graph for these losses: pairs in; values out, and for each family of `on_features` what it compares."""
        images = tf.TensorSpec([None, None, None, 3], tf.as_dtype(dtype))
        masks = [tf.TensorSpec([None, None, None], tf.bool)] if self.plan.protocol.masked else []
        signature = [images, images, *masks, *((images, tf.TensorSpec([None], tf.int32)) if shared else ())]
        bits = tf.uint16 if self.precision == "bfloat16" else tf.float32

        @tf.function(input_signature=signature, autograph=False)
        def graph(generated: tf.Tensor, target: tf.Tensor, *further: tf.Tensor) -> tuple[Values, dict[str, Values]]:
            generated, target = as_images(generated), as_images(target)
            mask, once = further[: len(masks)], further[len(masks) :]
            if with_gradient:
                return self._values_and_norms(losses, generated, target, *mask), {}
            targets = as_images(once[0]) if shared else target
            both = self._networks.features(tf.concat([generated, targets], 0), (*losses, *on_features))
            pairs = tf.shape(generated)[0]
            ours, theirs = _rows(both, slice(0, pairs)), _rows(both, slice(pairs, None))
            if shared:
                theirs = tf.nest.map_structure(lambda maps: tf.gather(maps, once[1]), theirs)
            on_gpu = self._networks.device.on_gpu
            pair = generated, target, ours, theirs, Reductions(mask[0] if mask else None, on_gpu)
            values: Values = {}
            for family in self.plan.families(losses):
                values |= family_values(self._networks, family, *pair, compiled=on_gpu)
            compared = {
                family.whole: {layer: both[LOSSES[family.whole].network][layer] for layer in family.layers}
                for family in self.plan.families(on_features)
            }
            return values, tf.nest.map_structure(lambda tensor: tf.bitcast(tensor, bits), compared)

        return graph

    def _values_and_norms(
        self, losses: tuple[str, ...], generated: tf.Tensor, target: tf.Tensor, *mask: tf.Tensor
    ) -> Values:
        # The border is cut already.
        whole = replace(self.plan, protocol=replace(self.plan.protocol, crop_border=0))
        function = ObjectiveFunction(whole, self._networks, fused=False, beside=losses)
        _, gradient, values = function.value_and_gradient(generated, function.references(target, *mask))
        assert self.plan.objective, "an objective is what has a gradient"
        values["objective"] = self.plan.objective.evaluate(values)
        norms = (
            tf.sqrt(tf.reduce_sum(tf.square(gradient), axis=(1, 2, 3))),
            tf.reduce_max(tf.abs(gradient), axis=(1, 2, 3)),
        )
        return values | dict(zip(PIXEL_GRADIENT_COLUMNS, norms, strict=True))


def _rows(features: NetworkFeatures, rows: slice) -> dict[str, Features]:
    return {network: {layer: tensor[rows] for layer, tensor in maps.items()} for network, maps in features.items()}
