"""A batch of pairs as losses see it, and the step from levels to images."""

from collections.abc import Mapping, Sequence
from pkgutil import resolve_name
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from transforms.losses.catalog import LOSSES
from transforms.losses.networks.loaded import NetworkFeatures, Networks
from transforms.losses.networks.specs import NETWORKS
from transforms.losses.plan import Family
from transforms.losses.reductions import OVER_WHOLE, Reductions

# Features of one network by layer, [B, h, w, C], float32, bfloat16 or float16.
Features = Mapping[str, tf.Tensor]
_NONE: Mapping[str, Any] = MappingProxyType({})


class Pair(NamedTuple):
    """A batch of pairs, as a loss sees it.

    Attributes:
        generated: float32 [B, H, W, 3] in [0, 1], RGB.
        target: as `generated`.
        generated_features: for a loss on a network, the features of the layers it compares, in their order.
        target_features: as `generated_features`.
        weights: for a loss on a network, what the network's weights file holds for the losses on it.
        over: reduces maps over the positions of the pictures.
        compiled: whether XLA is to compile what is slow operation by operation, as on a GPU.
        strides: for a loss on a network, of each layer the pixels from a feature to the next.
    """

    generated: tf.Tensor
    target: tf.Tensor
    generated_features: Features = _NONE
    target_features: Features = _NONE
    weights: Mapping[str, np.ndarray] = _NONE
    over: Reductions = OVER_WHOLE
    compiled: bool = False
    strides: Mapping[str, int] = _NONE


def as_images(levels: np.ndarray | tf.Tensor) -> tf.Tensor:
    """Turn levels into images, float32 in [0, 1].

    Args:
        levels: uint8 or uint16 of full range; or float32 in [0, 1], which stays as it is.
    """
    dtype = tf.as_dtype(levels.dtype)
    if dtype.is_floating:
        return tf.cast(levels, tf.float32)
    # Outside the graph: Grappler would multiply by the rounded reciprocal of a constant in it. Half the levels would
    # come out one bit off, 8 bits would differ from the same 16 bits, and GMSD's luma from MATLAB's.
    with tf.init_scope():
        full_range = tf.constant(dtype.max, tf.float32)
    return tf.cast(levels, tf.float32) / full_range


def family_values(
    networks: Networks,
    family: Family,
    generated: tf.Tensor,
    target: tf.Tensor,
    generated_features: NetworkFeatures,
    target_features: NetworkFeatures,
    over: Reductions = OVER_WHOLE,
    compiled: bool = False,
) -> dict[str, tf.Tensor]:
    """The losses of a family as TensorFlow computes them, each float32 [B].

    Args:
        networks: whose features are given.
        family: of losses of the networks' plan.
        generated: float32 [B, H, W, 3] in [0, 1].
        target: as `generated`.
        generated_features: from `Networks.features`, for these losses and perhaps others.
        target_features: as `generated_features`.
        over: reduces maps over positions.
        compiled: see `Pair`; for values alone, without a gradient.
    """
    layers = family.layers
    pair = _pair(networks, family.whole, layers, generated, target, generated_features, target_features, over, compiled)
    if len(family.members) == 1:
        return {family.members[0]: resolve_name(LOSSES[family.whole].function)(pair)}
    shares = resolve_name(LOSSES[family.whole].shares)(pair)
    compared = {name: networks.plan.compared_layers(name) for name in family.members}
    return {name: tf.add_n([shares[layer] for layer in layers]) for name, layers in compared.items()}


def loss_map(networks: Networks, name: str, generated: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Where a loss of the networks' plan finds the images of each pair different, by its `map`: [B, h, w], at least 0.

    Args:
        networks: that TensorFlow computes.
        name: of the loss.
        generated: float32 [B, H, W, 3] in [0, 1].
        target: as `generated`.
    """
    ours, theirs = (networks.features(images, [name]) for images in (generated, target))
    pair = _pair(networks, name, networks.plan.compared_layers(name), generated, target, ours, theirs)
    found: tf.Tensor = resolve_name(LOSSES[name].map)(pair)
    return found


def _pair(
    networks: Networks,
    name: str,
    layers: Sequence[str],
    generated: tf.Tensor,
    target: tf.Tensor,
    generated_features: NetworkFeatures,
    target_features: NetworkFeatures,
    over: Reductions = OVER_WHOLE,
    compiled: bool = False,
) -> Pair:
    loss = LOSSES[name]
    ours, theirs = ({k: by[loss.network][k] for k in layers} for by in (generated_features, target_features))
    strides = NETWORKS[loss.network].strides if loss.network else {}
    return Pair(generated, target, ours, theirs, networks.weights.get(loss.network, {}), over, compiled, strides)
