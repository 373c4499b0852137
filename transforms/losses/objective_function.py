"""A plan's objective as a function of the generated images, computing once what depends on the targets alone."""

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pkgutil import resolve_name
from typing import Any

import numpy as np
import tensorflow as tf

from transforms.losses.catalog import LOSSES
from transforms.losses.mean_matching import match_mean
from transforms.losses.networks.loaded import NetworkFeatures, Networks
from transforms.losses.objective import check_differentiable
from transforms.losses.pair import family_values
from transforms.losses.plan import Plan
from transforms.losses.reductions import Reductions
from transforms.worker.threads import thread_count

# The losses' share of the targets: tensors whose first axis is the pair, so that rows can be taken and joined.
References = dict[str, tf.Tensor]

# Any number of images of any size.
IMAGES = tf.TensorSpec([None, None, None, 3], tf.float32)
_TARGET, _MASK = "target", "mask"


class ObjectiveFunction:
    """The objective of a plan, to be minimized over the generated images.

    With `fused=False`, `value` is plain TensorFlow: differentiable by a tape, and XLA compiles it. Otherwise, on a CPU,
    LPIPS' head and its gradient are one fused pass between the network's way up and its way back: as TensorFlow
    operations they take nearly as long as the network does in bfloat16.

    Args:
        plan: with an objective.
        networks: of this plan, if they are loaded already, to be differentiated.
        fused: whether to use the losses' kernels on a CPU. Then only `value_and_gradient` gives the gradient.
        beside: other losses of the plan whose values `value_and_gradient` is to return, too.

    Raises:
        ValueError: the plan has no objective, or one without a usable gradient.
        WeightsError: a weights file is missing or damaged, or its hash differs from the plan's.
    """

    def __init__(self, plan: Plan, networks: Networks | None = None, fused: bool = True, beside: Collection[str] = ()):
        if plan.objective is None:
            raise ValueError("the plan has no objective: name one, such as 'lpips_vgg + mae'")
        check_differentiable(plan.objective)
        self.plan = plan
        self._objective = plan.objective
        self._networks = networks or Networks(plan, descends=True)
        self.device = self._networks.device
        self._weights = {name: weight for weight, name in plan.objective.terms}
        self._losses = tuple(dict.fromkeys((*self._weights, *beside)))
        # NumPy and numba hardly know float16.
        fused = fused and not (self.device.on_gpu or plan.protocol.masked) and self._networks.precision != "float16"
        self._fused = tuple(name for name in self._weights if fused and LOSSES[name].gradient_kernel)
        # Each of these losses has its minimum at an identical pair.
        self._compares = all(LOSSES[name].direction != "none" for name in self._weights)
        self._executor = ThreadPoolExecutor(thread_count(), "fused")

    @property
    def smallest_side(self) -> int:
        """Height and width in pixels below which the objective is not defined."""
        return max(map(self.plan.smallest_side, self._weights))

    def check_memory(self, pixels: int) -> None:
        """Raises EvaluationError if memory is short for a pass forward and back; see `Networks`."""
        self._networks.check_memory(self._losses, pixels, gradients=True)

    def references(self, target: tf.Tensor, mask: tf.Tensor | None = None) -> References:
        """Compute from the targets, with one pass through the networks, what `value` needs of them.

        Args:
            target: float32 [B, H, W, 3] in [0, 1], RGB.
            mask: if the plan's protocol is masked: the pixels that count, bool [B, H, W].

        Raises:
            ValueError: there is a mask although the protocol is not masked, or none although it is.
        """
        if (mask is not None) != self.plan.protocol.masked:
            raise ValueError("a mask belongs to a masked protocol, and to no other; see Protocol.masked")
        target = self.plan.protocol.inside(target)
        features = self._networks.features(target, self._losses)
        flat = {f"{network}/{layer}": maps[layer] for network, maps in features.items() for layer in maps}
        masks = {} if mask is None else {_MASK: self.plan.protocol.inside(mask)}
        return {_TARGET: target, **masks, **flat}

    def value(self, generated: tf.Tensor, references: References) -> tf.Tensor:
        """The objective of each pair, float32 [B].

        Args:
            generated: float32 [B, H, W, 3] in [0, 1], RGB.
            references: of the targets.
        """
        generated = self._compared(generated, references)
        features = self._networks.features(generated, self._weights)
        total, _ = self._unfused(generated, features, references)
        for name in self._fused:
            total += self._fused_term(name, features, references)[0]
        return total

    def value_and_gradient(
        self, generated: tf.Tensor, references: References
    ) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        """The objective of each pair, its gradient, and the losses.

        Args:
            generated: as for `value`.
            references: of the targets.

        Returns:
            the objective, float32 [B]; its gradient, float32 [B, H, W, 3]; float32 [B] for every loss of the objective
            and of `beside`.
        """
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(generated)
            inside = self._compared(generated, references)
            features = self._networks.features(inside, self._losses, gradients=True)
            total, values = self._unfused(inside, features, references)
        # No layer mixes pairs, so row i of the sum's gradient is the gradient of pair i's objective.
        outputs, slopes = [total], [tf.ones_like(total)]
        for name in self._fused:
            term, at_features = self._fused_term(name, features, references)
            outputs += [features[LOSSES[name].network][layer] for layer in self.plan.compared_layers(name)]
            slopes += at_features
            total += term
            values[name] = term / self._weights[name]
        gradient = tape.gradient(outputs, generated, output_gradients=slopes)
        if self._compares:
            identical = tf.reduce_all(inside == references[_TARGET], axis=(1, 2, 3), keepdims=True)
            # Exactly 0, even if the two images went through the network in batches of two sizes and rounded apart.
            gradient = tf.where(identical, 0.0, gradient)
        for name in self._losses:
            if name not in values:
                values[name] = self._value(name, inside, features, references)
        return total, gradient, values

    def _compared(self, generated: tf.Tensor, references: References) -> tf.Tensor:
        """The generated images as the losses see them."""
        inside = self.plan.protocol.inside(generated)
        if not self.plan.protocol.gt_mean:
            return inside
        return match_mean(inside, references[_TARGET], references.get(_MASK))

    def _unfused(
        self, generated: tf.Tensor, features: NetworkFeatures, references: References
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The objective without its fused terms, and the losses in it."""
        total, values = tf.fill(tf.shape(generated)[:1], self._objective.constant), {}
        for name, weight in self._weights.items():
            if name not in self._fused:
                values[name] = self._value(name, generated, features, references)
                total += weight * values[name]
        return total, values

    def _value(self, name: str, generated: tf.Tensor, features: NetworkFeatures, references: References) -> tf.Tensor:
        target = {network: {k: references[f"{network}/{k}"] for k in maps} for network, maps in features.items()}
        over = Reductions(references.get(_MASK), self._networks.device.on_gpu)
        (family,) = self.plan.families([name])
        return family_values(self._networks, family, generated, references[_TARGET], features, target, over)[name]

    def _fused_term(
        self, name: str, features: NetworkFeatures, references: References
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """A loss times its weight, and the gradient of that to the generated features of each layer."""
        loss, layers = LOSSES[name], self.plan.compared_layers(name)
        generated = [features[loss.network][layer] for layer in layers]
        target = [references[f"{loss.network}/{layer}"] for layer in layers]
        dtype = generated[0].dtype
        bits = tf.uint16 if dtype == tf.bfloat16 else dtype
        kernel = partial(
            resolve_name(loss.gradient_kernel),
            weights={layer: self._networks.weights[loss.network][layer] for layer in layers},
            factor=self._weights[name],
            executor=self._executor,
        )
        value, *gradients = tf.numpy_function(
            partial(_call_kernel, kernel),
            [tf.bitcast(tensor, bits) for tensor in (*generated, *target)],
            [tf.float32] + [bits] * len(layers),
            stateful=False,
        )
        return tf.ensure_shape(value, [None]), [
            tf.ensure_shape(tf.bitcast(gradient, dtype), maps.shape)
            for gradient, maps in zip(gradients, generated, strict=True)
        ]


def _call_kernel(kernel: Callable[..., Any], *maps: np.ndarray) -> list[np.ndarray]:
    value, gradients = kernel(maps[: len(maps) // 2], maps[len(maps) // 2 :])
    return [value, *gradients]
