"""A plan's objective as a function of the generated images, with what belongs to the targets computed once."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import tensorflow as tf

from transforms.losses import fused, perceptual
from transforms.losses.catalog import LOSSES
from transforms.losses.networks.layers import LPIPS_LAYERS
from transforms.losses.networks.loaded import Networks
from transforms.losses.objective import check_differentiable
from transforms.losses.plan import Plan
from transforms.worker.threads import thread_count

# What belongs to the targets: tensors whose first axis is the pair, so that rows can be taken, dropped and appended.
References = dict[str, tf.Tensor]

# Of images in any number and size.
IMAGES = tf.TensorSpec([None, None, None, 3], tf.float32)
_TARGET = "target"


class ObjectiveFunction:
    """The objective of a plan, to be minimized over the generated images.

    On a CPU LPIPS' head and its gradient are one fused pass between the network's way up and its way back: as
    TensorFlow operations they take nearly as long as the network does in bfloat16.

    Args:
        plan: with an objective.
        networks: of this plan, if they are loaded already.

    Raises:
        ValueError: the plan has no objective, or one that has no gradient to follow.
        WeightsError: a weights file is missing, damaged or another than the plan names.
    """

    def __init__(self, plan: Plan, networks: Networks | None = None):
        if plan.objective is None:
            raise ValueError("the plan has no objective: name one, such as 'lpips_vgg + mae'")
        check_differentiable(plan.objective)
        self.plan = plan
        self._objective = plan.objective
        self._networks = networks or Networks(plan)
        self.device = self._networks.device
        self._weights = {name: weight for weight, name in plan.objective.terms}
        self._fused = "lpips_vgg" in self._weights and not self.device.on_gpu
        # An identical pair is where each of these losses has its minimum.
        self._compares = all(LOSSES[name].direction != "none" for name in self._weights)
        self._executor = ThreadPoolExecutor(thread_count(), "fused")

    @property
    def smallest_side(self) -> int:
        """Height and width in pixels below which the objective is not defined."""
        return max(map(self.plan.smallest_side, self._weights))

    def references(self, target: tf.Tensor) -> References:
        """What `value` needs of the targets: one pass through the networks.

        Args:
            target: float32 [B, H, W, 3] in [0, 1], RGB.
        """
        features = self._networks.features(target, self._weights)
        flat = {f"{network}/{layer}": maps[layer] for network, maps in features.items() for layer in maps}
        return {_TARGET: target, **flat}

    def value(self, generated: tf.Tensor, references: References) -> tf.Tensor:
        """The objective of each pair, float32 [B].

        Args:
            generated: float32 [B, H, W, 3] in [0, 1], RGB.
            references: of the targets.
        """
        features = self._networks.features(generated, self._weights)
        total = self._total(generated, features, references)
        if self._fused:
            total += self._fused_lpips(features["lpips"], references)[0]
        return total

    def value_and_gradient(self, generated: tf.Tensor, references: References) -> tuple[tf.Tensor, tf.Tensor]:
        """The objective of each pair, float32 [B], and its gradient, float32 [B, H, W, 3].

        Args:
            generated: as for `value`.
            references: of the targets.
        """
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(generated)
            features = self._networks.features(generated, self._weights)
            total = self._total(generated, features, references)
        # No layer mixes pairs, so row i of the sum's gradient is the gradient of pair i's objective.
        outputs, slopes = [total], [tf.ones_like(total)]
        if self._fused:
            value, at_features = self._fused_lpips(features["lpips"], references)
            outputs += [features["lpips"][layer] for layer in LPIPS_LAYERS]
            slopes += at_features
            total += value
        gradient = tape.gradient(outputs, generated, output_gradients=slopes)
        if self._compares:
            identical = tf.reduce_all(generated == references[_TARGET], axis=(1, 2, 3), keepdims=True)
            # Exactly 0, even if the two images went through the network in batches of two sizes and rounded apart.
            gradient = tf.where(identical, 0.0, gradient)
        return total, gradient

    def _total(
        self, generated: tf.Tensor, features: Mapping[str, perceptual.Features], references: References
    ) -> tf.Tensor:
        """The objective without what is fused."""
        target = references[_TARGET]
        target_features = {name: {k: references[f"{name}/{k}"] for k in maps} for name, maps in features.items()}
        total = tf.fill(tf.shape(generated)[:1], self._objective.constant)
        for name, weight in self._weights.items():
            if not (self._fused and name == "lpips_vgg"):
                total += weight * self._networks.value(name, generated, target, features, target_features)
        return total

    def _fused_lpips(self, generated: perceptual.Features, references: References) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """LPIPS times its weight, and its gradient to the generated features of each layer."""
        dtype = generated[LPIPS_LAYERS[0]].dtype
        # The weight goes into the linear heads: the maps need not be multiplied.
        heads = [np.float32(self._weights["lpips_vgg"]) * self._networks.heads[layer] for layer in LPIPS_LAYERS]
        bits = tf.uint16 if dtype == tf.bfloat16 else dtype
        maps = [generated[layer] for layer in LPIPS_LAYERS] + [references[f"lpips/{layer}"] for layer in LPIPS_LAYERS]
        value, *gradients = tf.numpy_function(
            partial(_call_kernel, heads, self._executor),
            [tf.bitcast(tensor, bits) for tensor in maps],
            [tf.float32] + [bits] * len(heads),
            stateful=False,
        )
        value = tf.ensure_shape(value, [None])
        return value, [
            tf.ensure_shape(tf.bitcast(gradient, dtype), generated[layer].shape)
            for layer, gradient in zip(LPIPS_LAYERS, gradients, strict=True)
        ]


def _call_kernel(heads: list[np.ndarray], executor: ThreadPoolExecutor, *maps: np.ndarray) -> list[np.ndarray]:
    value, gradients = fused.lpips.lpips_vgg_and_gradient(maps[: len(heads)], maps[len(heads) :], heads, executor)
    return [value, *gradients]
