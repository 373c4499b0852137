"""The networks of a plan, loaded once for all that use them, and what they compute on."""

from collections.abc import Collection, Mapping
from typing import Any

import tensorflow as tf

from transforms.losses import perceptual
from transforms.losses.catalog import LOSSES, loss_function
from transforms.losses.devices import Device, find_devices
from transforms.losses.networks.layers import LPIPS_LAYERS
from transforms.losses.networks.vgg16 import KERAS_PREPROCESSING, LPIPS_PREPROCESSING, Vgg16
from transforms.losses.networks.weights_file import check_vgg16, load_keras, load_lpips
from transforms.losses.plan import Plan

# By the name of the network.
NetworkFeatures = Mapping[str, perceptual.Features]


class Networks:
    """The networks that any loss of a plan needs, on one device.

    Args:
        plan: what they are for.
        device: that holds them; None: the first of this process.
        descends: whether there will be gradients although the plan itself asks for none.

    Attributes:
        plan: what they are for.
        device: that holds them.
        precision: of the networks' features: `float32`, `bfloat16` or `float16`.
        heads: per layer the weights of LPIPS' channels, float32 [C]; empty if no loss needs them.

    Raises:
        WeightsError: a weights file is missing, damaged or another than the plan names.
    """

    def __init__(self, plan: Plan, device: Device | None = None, descends: bool = False):
        self.plan = plan
        self.device = device or find_devices()[0]
        self.precision = self.device.precision(plan.precision, gradients=descends or plan.pixel_gradient)
        self.heads: dict[str, Any] = {}
        self._networks: dict[str, Vgg16] = {}
        with self.device.scope():
            self._load(plan)

    def _load(self, plan: Plan) -> None:
        dtype = tf.as_dtype(self.precision)
        if "lpips" in plan.networks:
            assert plan.lpips_weights, "the launcher gives the weights of every network needed"
            tensors = load_lpips(plan.lpips_weights.read())
            check_vgg16(tensors, heads=True)
            self._networks["lpips"] = Vgg16(tensors, LPIPS_PREPROCESSING, dtype)
            self.heads = {layer: tensors[f"lin{layer[4]}.weight"] for layer in LPIPS_LAYERS}
        if "keras" in plan.networks:
            assert plan.keras_weights, "the launcher gives the weights of every network needed"
            tensors = load_keras(plan.keras_weights.read())
            check_vgg16(tensors, heads=False)
            self._networks["keras"] = Vgg16(tensors, KERAS_PREPROCESSING, dtype)

    def features(self, images: tf.Tensor, losses: Collection[str]) -> dict[str, perceptual.Features]:
        """Features of every layer that the losses need, by network and layer.

        Args:
            images: float32 [B, H, W, 3] in [0, 1], RGB.
            losses: names of the plan's losses.
        """
        layers = {name: self.plan.layers(name, losses) for name in self._networks}
        return {name: self._networks[name].features(images, needed) for name, needed in layers.items() if needed}

    def value(
        self,
        loss: str,
        generated: tf.Tensor,
        target: tf.Tensor,
        generated_features: NetworkFeatures,
        target_features: NetworkFeatures,
    ) -> tf.Tensor:
        """A loss of the plan as TensorFlow computes it, float32 [B].

        Args:
            loss: its name.
            generated: float32 [B, H, W, 3] in [0, 1].
            target: as `generated`.
            generated_features: of `features`, for this loss and perhaps others.
            target_features: as `generated_features`.
        """
        if not LOSSES[loss].network:
            return loss_function(LOSSES[loss])(generated, target)
        if loss == "lpips_vgg":
            return perceptual.lpips_vgg(generated_features["lpips"], target_features["lpips"], self.heads)
        function = {"vgg_mse": perceptual.vgg_mse, "style": perceptual.style}[loss]
        network = self.plan.vgg
        return function(generated_features[network], target_features[network], self.plan.vgg_layers)
